"""Strings -> token ids, as one flat array."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Int64

from mig_jax.core.errors import UserError
from mig_jax.core.progress import Progress, silent
from mig_jax.models.tokenizers.text_tokenizer import TextTokenizer, Tokenized, load_text_tokenizer

_CHUNK = 4096  # texts per call: bounds the memory of the tokenizer's own objects; progress is reported after each call
_AHEAD = 2  # chunks being tokenised (in native threads) while the next texts are read


@dataclass(frozen=True)
class Tokens:
    """The token ids of N texts, end to end.

    Args:
      id: int32 ``[Z]``.
      ptr: text n is ``id[ptr[n]:ptr[n+1]]``; int64 ``[N+1]``.
      cut: number of texts that were longer than the limit.
    """

    id: Int32[np.ndarray, " Z"]
    ptr: Int64[np.ndarray, " N1"]
    cut: int = 0

    @cached_property
    def length(self) -> Int64[np.ndarray, " N"]:
        """Tokens of each text; int64 ``[N]``."""
        return np.diff(self.ptr)


Encode = Callable[[list[str]], Tokenized]


@dataclass(frozen=True)
class Tokenizer:
    """A checkpoint's tokenizer with a length limit; make one with ``load_tokenizer``.

    Args:
      encode: any strings -> their ids, special ones included, cut to the limit, without padding.
      sha256: of the files it was read from.
    """

    encode: Encode
    sha256: str

    def __call__(
        self, texts: Iterable[str], *, total: int | None = None, progress: Progress = silent, stage: str = "tokenize"
    ) -> Tokens:
        """Tokenise any strings, the empty one and unpaired surrogates included.

        Texts are read one chunk at a time and dropped; only their ids stay in memory.

        Args:
          total: the number of texts, for ``progress``, where ``texts`` is an iterator.

        Raises:
          UserError: an entry is not a string, or ``texts`` is one.
        """
        if isinstance(texts, str):
            raise UserError("texts must be a list of strings, not one string")
        total = len(texts) if isinstance(texts, Sequence) else total
        ids, lengths, done, cut = [np.empty(0, np.int32)], [np.zeros(1, np.int64)], 0, 0
        for chunk in _ahead(self.encode, _chunks(texts)):
            lengths.append(np.fromiter(map(len, chunk.ids), np.int64, len(chunk.ids)))
            ids.append(np.fromiter((i for text in chunk.ids for i in text), np.int32, int(lengths[-1].sum())))
            done, cut = done + len(chunk.ids), cut + chunk.cut
            progress(stage, done, total, "texts")
        return Tokens(np.concatenate(ids), np.cumsum(np.concatenate(lengths)), cut)


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    entries = enumerate(texts)
    while chunk := [_checked(text, index) for index, text in islice(entries, _CHUNK)]:
        yield chunk


def _checked(text: str, index: int) -> str:
    if not isinstance(text, str):
        raise UserError(f"text {index} is not a string but {type(text).__name__}")
    return text


def _ahead(encode: Encode, chunks: Iterator[list[str]]) -> Iterator[Tokenized]:
    """``map(encode, chunks)``, in order, a few chunks in flight: tokenizers release Python's lock."""
    pending: deque[Future[Tokenized]] = deque()
    with ThreadPoolExecutor(_AHEAD) as threads:
        for chunk in chunks:
            pending.append(threads.submit(encode, chunk))
            if len(pending) > _AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def load_tokenizer(source: Path, max_length: int, *, append_end: bool = False) -> Tokenizer:
    """The tokenizer of a checkpoint's folder or .gguf file.

    The limits inside tokenizer.json are overridden: MiniLM's cuts and pads to 128 by itself, its model takes 256.

    Args:
      max_length: tokens of a text to keep, special ones included; the end is cut off.
      append_end: append the end-of-text token, within the limit, to every text that does not end with it.

    Raises:
      UserError: there is no tokenizer, it cannot be read, or it has no end-of-text token where one is appended.
    """
    tokenizer = load_text_tokenizer(source, max_length - append_end)

    def encode(texts: list[str]) -> Tokenized:
        return tokenizer.run(texts, True)

    return Tokenizer(_ended(encode, _end_of_text(tokenizer)) if append_end else encode, tokenizer.sha256)


def _ended(encode: Encode, last: int) -> Encode:
    """The same, every text ending with ``last``."""

    def encode_and_end(texts: list[str]) -> Tokenized:
        tokenized = encode(texts)
        for ids in tokenized.ids:
            if not ids or ids[-1] != last:
                ids.append(last)
        return tokenized

    return encode_and_end


def _end_of_text(tokenizer: TextTokenizer) -> int:
    """The id of the end-of-text token; generation may stop at other tokens too."""
    name = tokenizer.special_tokens.get("eos_token")
    ids = tokenizer.encode_plain([name])[0] if name else sorted(tokenizer.eos_ids)
    if len(ids) != 1:
        raise UserError(f"{tokenizer.where} names no end-of-text token", key="embedder.append_eos")
    return ids[0]
