"""SentencePiece's tokenizer.model, the tokenizer of Llama 1 and 2, the first Mistrals and models tuned from them.

The file is converted to the metadata of a GGUF file, and the same code builds the tokenizer. transformers 5 reads such
folders too, but orders merges by id instead of by score, drops a blank of a text that begins with two, and adds BOS
only if tokenizer_config.json requests it; the models were tuned with SentencePiece's own ids after BOS.
The format of the file: github.com/google/sentencepiece, src/sentencepiece_model.proto.
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
    """The tokenizer of a folder with tokenizer.model, and ``chat`` with its missing special tokens.

    Added tokens, of tokenizer_config.json and added_tokens.json, follow the tokens of the file.

    Raises:
      UserError: the file is not a SentencePiece model or not of Llama's kind (BPE with byte fallback, without
        normalisation of texts), or the ids of added tokens have a gap.
    """
    file = folder / NAME
    config_file = folder / "tokenizer_config.json"
    config = read_json(config_file) if config_file.is_file() else {}
    metadata = _metadata(file, config)
    tokenizer = gguf_tokenizer(metadata, file)
    special = gguf_special_tokens(metadata) | {name: token for name, token in chat.special_tokens.items() if token}
    _add(tokenizer, _added(folder, config), set(special.values()), folder)
    return tokenizer, chat._replace(special_tokens=special)


def _metadata(file: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The GGUF metadata of the tokenizer; the numbers of token types are the same in both formats."""
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()  # pyright: ignore[reportAttributeAccessIssue]
    try:
        model.ParseFromString(file.read_bytes())
        if not model.pieces:  # protobuf reads many other files as unknown fields
            raise DecodeError("it has no pieces")
    except (DecodeError, OSError) as error:
        raise UserError(f"cannot be read as a SentencePiece model ({error})", where=file) from error
    spec, normal = model.trainer_spec, model.normalizer_spec
    differences = [
        *([] if spec.model_type == _BPE else ["it is not BPE"]),
        *([] if spec.byte_fallback else ["it has no byte fallback"]),
        *(["it ends words with blanks"] if spec.treat_whitespace_as_suffix else []),
        *(["it rewrites characters"] if normal.precompiled_charsmap else []),
        *(["it drops blanks"] if normal.remove_extra_whitespaces else []),
        *([] if normal.escape_whitespaces else ["it does not write blanks as ▁"]),
    ]
    if differences:
        raise UserError(
            f"not of Llama's kind: {', '.join(differences)}; write a tokenizer.json beside it, with transformers' "
            "AutoTokenizer.from_pretrained(...).save_pretrained(DIR)",
            where=file,
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
    """Id -> token and options, from the older file and the newer one, which has priority."""
    older, newer = folder / "added_tokens.json", config.get("added_tokens_decoder") or {}
    try:
        added = {number: {"content": token} for token, number in (read_json(older) if older.is_file() else {}).items()}
        added |= {int(number): dict(entry) for number, entry in newer.items()}
        if not all(type(n) is int and isinstance(entry["content"], str) for n, entry in added.items()):
            raise ValueError("no text or no number")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"added_tokens.json must be an object, token -> id, and added_tokens_decoder of "
            f"tokenizer_config.json one, id -> object with content ({error})",
            where=folder,
        ) from error
    return added


def _add(tokenizer: Tokenizer, added: dict[int, dict[str, Any]], special: set[str], folder: Path) -> None:
    for number, entry in sorted(added.items()):
        token = entry["content"]
        if tokenizer.token_to_id(token) is None:
            options = {name: bool(entry.get(name, False)) for name in ("lstrip", "rstrip", "single_word")}
            marked = bool(entry.get("special", False)) or token in special
            added_token = AddedToken(token, special=marked, normalized=False, **options)
            (tokenizer.add_special_tokens if marked else tokenizer.add_tokens)([added_token])
        if tokenizer.token_to_id(token) != number:
            raise UserError(
                f"the added token {token!r} has the id {number}, but the next id is {tokenizer.token_to_id(token)}",
                where=folder,
            )
