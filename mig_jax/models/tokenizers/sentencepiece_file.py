"""SentencePiece's tokenizer.model, which Llama 1 and 2, the first Mistrals and what was tuned from them come with.

The file becomes the metadata that a GGUF file would have of it, and the same code makes the tokenizer. transformers 5
reads such folders too, but takes merges by id instead of by score, drops a blank where a text begins with two, and adds
BOS only where tokenizer_config.json asks for it; the models were tuned with SentencePiece's own ids after BOS.
The file's layout: github.com/google/sentencepiece, src/sentencepiece_model.proto.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.checkpoint import read_json
from mig_jax.models.tokenizers.chat import Chat
from mig_jax.models.tokenizers.gguf_tokenizer import gguf_special_tokens, gguf_tokenizer

NAME = "tokenizer.model"
_BPE = 2  # TrainerSpec.ModelType


def sentencepiece_tokenizer(folder: Path, chat: Chat) -> tuple[Tokenizer, Chat]:
    """The tokenizer of a folder with tokenizer.model, and ``chat`` with the special tokens that it lacked.

    Tokens added since, of tokenizer_config.json and added_tokens.json, follow the file's own.

    Raises:
      UserError: the file is no SentencePiece model or is not of Llama's kind (BPE with bytes to fall back on, texts
        taken as they are), or the ids of added tokens leave a gap.
    """
    file = folder / NAME
    there = folder / "tokenizer_config.json"
    config = read_json(there) if there.is_file() else {}
    metadata = _metadata(file, config)
    tokenizer = gguf_tokenizer(metadata, file)
    special = gguf_special_tokens(metadata) | {name: token for name, token in chat.special_tokens.items() if token}
    _add(tokenizer, _added(folder, config), set(special.values()), folder)
    return tokenizer, chat._replace(special_tokens=special)


def _metadata(file: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """What GGUF says of such a tokenizer; a token's type has the same number in both."""
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()  # pyright: ignore[reportAttributeAccessIssue]
    try:
        model.ParseFromString(file.read_bytes())
        if not model.pieces:  # protobuf takes much that is none for fields it does not know
            raise DecodeError("it has no pieces")
    except (DecodeError, OSError) as error:
        raise UserError(f"{file}: cannot be read as a SentencePiece model ({error})") from error
    spec, normal = model.trainer_spec, model.normalizer_spec
    other = [
        *([] if spec.model_type == _BPE else ["it is no BPE"]),
        *([] if spec.byte_fallback else ["it has no bytes to fall back on"]),
        *(["it ends words with blanks"] if spec.treat_whitespace_as_suffix else []),
        *(["it rewrites characters"] if normal.precompiled_charsmap else []),
        *(["it drops blanks"] if normal.remove_extra_whitespaces else []),
        *([] if normal.escape_whitespaces else ["it does not write blanks as ▁"]),
    ]
    if other:
        raise UserError(
            f"{file}: not of Llama's kind: {', '.join(other)}; write a tokenizer.json beside it, with transformers' "
            "AutoTokenizer.from_pretrained(...).save_pretrained(DIR)"
        )
    ids = {"bos": spec.bos_id, "eos": spec.eos_id, "unknown": spec.unk_id, "padding": spec.pad_id}
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [piece.piece for piece in model.pieces],
        "tokenizer.ggml.scores": [piece.score for piece in model.pieces],
        "tokenizer.ggml.token_type": [piece.type for piece in model.pieces],
        "tokenizer.ggml.add_space_prefix": normal.add_dummy_prefix,
        "tokenizer.ggml.add_bos_token": config.get("add_bos_token") is not False,
        "tokenizer.ggml.add_eos_token": config.get("add_eos_token") is True,
        **{f"tokenizer.ggml.{name}_token_id": number for name, number in ids.items() if number >= 0},
    }


def _added(folder: Path, config: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """Id -> token and options, of the newer file's list and the older one."""
    older, newer = folder / "added_tokens.json", config.get("added_tokens_decoder") or {}
    try:
        found = {number: {"content": token} for token, number in (read_json(older) if older.is_file() else {}).items()}
        found |= {int(number): dict(entry) for number, entry in newer.items()}
        if not all(type(n) is int and isinstance(entry["content"], str) for n, entry in found.items()):
            raise ValueError("no text or no number")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder}: added_tokens.json must be an object, token -> id, and added_tokens_decoder of "
            f"tokenizer_config.json one, id -> object with content ({error})"
        ) from error
    return found


def _add(tokenizer: Tokenizer, added: dict[int, dict[str, Any]], special: set[str], folder: Path) -> None:
    for number, entry in sorted(added.items()):
        token = entry["content"]
        if tokenizer.token_to_id(token) is None:
            options = {name: bool(entry.get(name, False)) for name in ("lstrip", "rstrip", "single_word")}
            marked = bool(entry.get("special", False)) or token in special
            one = AddedToken(token, special=marked, normalized=False, **options)
            (tokenizer.add_special_tokens if marked else tokenizer.add_tokens)([one])
        if tokenizer.token_to_id(token) != number:
            raise UserError(
                f"{folder}: the added token {token!r} has the id {number}, and {tokenizer.token_to_id(token)} is next"
            )
