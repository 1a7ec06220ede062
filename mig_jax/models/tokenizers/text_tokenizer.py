"""A checkpoint's tokenizer, from tokenizer.json, the older files of transformers, or a GGUF file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Int64
from tokenizers import Tokenizer

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.checkpoint import read_json
from mig_jax.models.checkpoints.gguf_header import read_metadata
from mig_jax.models.tokenizers.chat import Chat, chat_prompt, gguf_chat, load_chat
from mig_jax.models.tokenizers.digest import folder_sha256, metadata_sha256
from mig_jax.models.tokenizers.gguf_tokenizer import gguf_tokenizer
from mig_jax.models.tokenizers.sentencepiece_file import NAME as SENTENCEPIECE
from mig_jax.models.tokenizers.sentencepiece_file import sentencepiece_tokenizer

_GGUF_ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")  # end of text, of a turn, of a message


class Tokenized(NamedTuple):
    """The ids of each of some texts, and how many texts were longer than the limit."""

    ids: list[list[int]]
    cut: int


Run = Callable[[list[str], bool], Tokenized]
Offsets = Callable[[str], tuple[list[int], list[tuple[int, int]]]]


class Positions(NamedTuple):
    """The tokens of a text and where they lie in it.

    Args:
      ids: int32 ``[L]``.
      start, end: the characters of token l are ``text[start[l]:end[l]]``; the tokens of one character all have it;
        int64 ``[L]``.
    """

    ids: Int32[np.ndarray, " L"]
    start: Int64[np.ndarray, " L"]
    end: Int64[np.ndarray, " L"]


@dataclass(frozen=True)
class TextTokenizer:
    """Strings <-> token ids.

    Args:
      run: (texts, whether to add the checkpoint's special tokens) -> their ids. Takes any strings, the empty one and
        unpaired surrogates (replaced) included.
      decode: ids -> text, special tokens left out.
      vocab_size: 1 + the largest id.
      bos_id, pad_id: None where the checkpoint has none.
      eos_ids: the tokens that end a generated text.
      template: of chats; None where the checkpoint has none.
      special_tokens: ``bos_token`` and the like -> the token.
      sha256: of everything that it was made from.
      where: its files, for messages.
      offsets: a text -> its ids without added special tokens, and the characters of each; None: the tokenizer does
        not know them.
    """

    run: Run
    decode: Callable[[list[int]], str]
    vocab_size: int
    bos_id: int | None
    eos_ids: frozenset[int]
    pad_id: int | None
    template: str | None
    special_tokens: dict[str, str]
    sha256: str
    where: str
    offsets: Offsets | None = None

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Each text's ids with the special tokens that the checkpoint adds."""
        return self.run(texts, True).ids

    def encode_plain(self, texts: list[str]) -> list[list[int]]:
        """Without these, for prompts that contain their own. In both, the name of a special token is that token."""
        return self.run(texts, False).ids

    def prompt(
        self,
        messages: Sequence[Mapping[str, str]],
        add_generation_prompt: bool = True,
        *,
        mark_generation: bool = False,
    ) -> str:
        """The text of a chat, for ``encode_plain``; see ``chat.chat_prompt``."""
        return chat_prompt(
            messages,
            self.template,
            self.special_tokens,
            add_generation_prompt,
            mark_generation=mark_generation,
            where=self.where,
        )

    def positions(self, text: str) -> Positions:
        """The tokens of a text without added special tokens, and where each lies in the text.

        White space before a token belongs to it: byte-level tokenizers report positions without it.

        Raises:
          UserError: the tokenizer does not know the positions (an old one without tokenizer.json).
        """
        if self.offsets is None:
            raise UserError(f"{self.where}: no tokenizer.json, without which the positions of tokens are not known")
        ids, spans = self.offsets(text)
        start, end = np.array(spans, np.int64).reshape(-1, 2).T
        before = np.concatenate([[0], end[:-1]])
        for n in np.flatnonzero(before < start).tolist():
            if not text[before[n] : start[n]].strip():
                start[n] = before[n]
        return Positions(np.array(ids, np.int32), start, end)


def load_text_tokenizer(source: Path, max_length: int | None = None) -> TextTokenizer:
    """Read a tokenizer.

    Args:
      source: a folder with tokenizer.json, else with tokenizer.model, else with files that transformers.AutoTokenizer
        reads; or a .gguf file.
      max_length: tokens of a text to keep, special ones included; the end is cut off. None: all; limits in the files
        are ignored.

    Raises:
      UserError: there is no tokenizer, or it cannot be read.
    """
    if source.suffix == ".gguf":
        metadata = read_metadata(source)
        tokenizer = gguf_tokenizer(metadata, source)
        ends = frozenset(metadata[f"tokenizer.ggml.{key}"] for key in _GGUF_ENDS if f"tokenizer.ggml.{key}" in metadata)
        return _of_rust(tokenizer, max_length, gguf_chat(source, metadata), metadata_sha256(metadata), ends)
    chat = load_chat(source)
    digest, ends = folder_sha256(source), _ends(source)
    try:
        if (source / "tokenizer.json").is_file():
            tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
            return _of_rust(tokenizer, max_length, chat, digest, ends)
        if (source / SENTENCEPIECE).is_file() and _is_llama(source):
            tokenizer, chat = sentencepiece_tokenizer(source, chat)
            return _of_rust(tokenizer, max_length, chat, digest, ends)
        return _of_transformers(source, max_length, chat, digest, ends)
    except UserError:
        raise
    except Exception as error:  # tokenizers raises bare Exception; AutoTokenizer raises half a dozen types
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{source}: its tokenizer cannot be read: {why}") from error


def _of_rust(
    tokenizer: Tokenizer, max_length: int | None, chat: Chat, digest: str, ends: frozenset[int] | None
) -> TextTokenizer:
    tokenizer.no_padding()
    if max_length is None:
        tokenizer.no_truncation()
    else:
        _check_length(max_length, tokenizer.num_special_tokens_to_add(False))
        tokenizer.enable_truncation(max_length)

    def run(texts: list[str], special: bool) -> Tokenized:
        encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=special)
        ids = [encoding.ids for encoding in encodings]
        if max_length is None:
            return Tokenized(ids, 0)
        # A truncated text has max_length tokens; reading ``overflowing`` of every text takes longer than tokenising it.
        full = (encoding for encoding, kept in zip(encodings, ids, strict=True) if len(kept) >= max_length)
        return Tokenized(ids, sum(bool(encoding.overflowing) for encoding in full))

    def offsets(text: str) -> tuple[list[int], list[tuple[int, int]]]:
        encoding = tokenizer.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    ids = {name: tokenizer.token_to_id(token) for name, token in chat.special_tokens.items()}
    eos = ids.get("eos_token")
    return TextTokenizer(
        run=_cleaned(run),
        decode=lambda ids: tokenizer.decode(ids, skip_special_tokens=True),
        vocab_size=1 + max(tokenizer.get_vocab().values(), default=-1),
        bos_id=ids.get("bos_token"),
        eos_ids=ends if ends else frozenset(() if eos is None else (eos,)),
        pad_id=ids.get("pad_token"),
        template=chat.template,
        special_tokens=chat.special_tokens,
        sha256=digest,
        where=chat.where,
        offsets=offsets,
    )


def _of_transformers(
    folder: Path, max_length: int | None, chat: Chat, digest: str, ends: frozenset[int] | None
) -> TextTokenizer:
    from transformers import AutoTokenizer  # two seconds, for old checkpoints only

    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    options: dict[str, Any] = {"padding": False, "return_attention_mask": False, "verbose": False}
    if max_length is not None:
        _check_length(max_length, tokenizer.num_special_tokens_to_add(False))

    def whole(texts: list[str], special: bool, limit: int | None = None) -> list[list[int]]:
        cut = {"truncation": limit is not None, "max_length": limit}
        return tokenizer(texts, add_special_tokens=special, **cut, **options)["input_ids"] if texts else []

    def run(texts: list[str], special: bool) -> Tokenized:
        ids = whole(texts, special, max_length)
        if max_length is None:
            return Tokenized(ids, 0)
        # transformers does not report which texts it truncated: those of max_length tokens are tokenised again in full.
        full = [text for text, kept in zip(texts, ids, strict=True) if len(kept) >= max_length]
        return Tokenized(ids, sum(len(untruncated) > max_length for untruncated in whole(full, special)))

    eos = tokenizer.eos_token_id
    return TextTokenizer(
        run=_cleaned(run),
        decode=lambda ids: tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False),
        vocab_size=1 + max(tokenizer.get_vocab().values(), default=-1),
        bos_id=tokenizer.bos_token_id,
        eos_ids=ends if ends else frozenset(() if eos is None else (eos,)),
        pad_id=tokenizer.pad_token_id,
        template=chat.template,
        special_tokens={k: str(v) for k, v in tokenizer.special_tokens_map.items() if isinstance(v, str)},
        sha256=digest,
        where=chat.where,
    )


def _check_length(max_length: int, added: int) -> None:
    # The tokenizers library truncates nothing, without a warning, where the special tokens alone are more.
    if max_length < max(1, added):
        allowed = f">= {max(1, added)}, the number of special tokens of a text"
        raise UserError(key="max_length", value=max_length, allowed=allowed)


def _ends(folder: Path) -> frozenset[int] | None:
    """``eos_token_id``, one or several, of generation_config.json, else of config.json; None where neither has it."""
    for name in ("generation_config.json", "config.json"):
        if not (folder / name).is_file():
            continue
        value = read_json(folder / name).get("eos_token_id")
        if value is None:
            continue
        ids = value if isinstance(value, list) else [value]
        if not all(type(number) is int and number >= 0 for number in ids):
            raise UserError(
                key="eos_token_id", value=value, allowed="a token id or a list of them", where=folder / name
            )
        return frozenset(ids)
    return None


def _is_llama(folder: Path) -> bool:
    """Whether tokenizer.model is Llama's: tokenizer_config.json names its class (once LLaMATokenizer) or no class."""
    file = folder / "tokenizer_config.json"
    name = read_json(file).get("tokenizer_class") if file.is_file() else None
    return name is None or str(name).lower().startswith("llama")


def whole_characters(text: str) -> str:
    """The text with unpaired surrogates replaced: JSON can contain them, and tokenizers refuse them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _cleaned(run: Run) -> Run:
    """The same, for texts with unpaired surrogates too; see ``whole_characters``."""

    def run_cleaned(texts: list[str], special: bool) -> Tokenized:
        try:
            return run(texts, special)
        except (TypeError, UnicodeEncodeError):
            return run([whole_characters(text) for text in texts], special)

    return run_cleaned
