"""Strings -> token ids, as one flat array: the border behind which embedders see numbers only."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Int64

from mig_jax.errors import UserError
from mig_jax.models.checkpoint import sha256_file
from mig_jax.runtime.progress import Progress, silent

_CHUNK = 4096  # texts per call: memory for the tokenizer's own objects, and how often progress is told
_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt",
          "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model")  # fmt: skip


@dataclass(frozen=True)
class Tokens:
    """The token ids of N texts, end to end.

    Args:
      id: int32 ``[Z]``.
      ptr: text n is ``id[ptr[n]:ptr[n+1]]``; int64 ``[N+1]``.
    """

    id: Int32[np.ndarray, " Z"]
    ptr: Int64[np.ndarray, " N1"]

    @property
    def length(self) -> Int64[np.ndarray, " N"]:
        """Tokens of each text; int64 ``[N]``."""
        return np.diff(self.ptr)


@dataclass(frozen=True)
class Tokenizer:
    """A checkpoint's tokenizer with a length limit of ours; make one with ``load_tokenizer``.

    Args:
      encode: a list of strings -> their ids, special ones included, cut to the limit, without padding.
      sha256: of the files it was read from.
    """

    encode: Callable[[list[str]], list[list[int]]]
    sha256: str

    def __call__(self, texts: Sequence[str], *, progress: Progress = silent) -> Tokens:
        """Tokenise; any string will do, the empty one and unpaired surrogates included.

        Raises:
          UserError: an entry is not a string, or ``texts`` is one.
        """
        if isinstance(texts, str):
            raise UserError("texts must be a list of strings, not one string")
        ids, lengths = [np.empty(0, np.int32)], [np.zeros(1, np.int64)]
        for start in range(0, len(texts), _CHUNK):
            chunk = [_clean(text, start + i) for i, text in enumerate(texts[start : start + _CHUNK])]
            found = self.encode(chunk)
            lengths.append(np.fromiter(map(len, found), np.int64, len(found)))
            ids.append(np.fromiter((i for one in found for i in one), np.int32, int(lengths[-1].sum())))
            progress("tokenize", start + len(chunk), len(texts))
        return Tokens(np.concatenate(ids), np.cumsum(np.concatenate(lengths)))


def load_tokenizer(folder: Path, max_length: int) -> Tokenizer:
    """Read tokenizer.json or, where there is none, what transformers.AutoTokenizer makes of the folder.

    The limits inside tokenizer.json are overridden: MiniLM's cuts and pads to 128 by itself, its model takes 256.

    Args:
      max_length: tokens of a text to keep, special ones included; the end is cut off.

    Raises:
      UserError: there is no tokenizer in the folder, or it cannot be read.
    """
    present = [folder / name for name in _FILES if (folder / name).is_file()]
    digest = hashlib.sha256("\n".join(f"{f.name} {sha256_file(f)}" for f in present).encode()).hexdigest()
    try:
        encode = _fast(folder, max_length) if folder / _FILES[0] in present else _auto(folder, max_length)
    except Exception as error:  # tokenizers raises bare Exception; AutoTokenizer raises half a dozen types
        raise UserError(f"{folder}: its tokenizer cannot be read: {str(error).splitlines()[0]}") from error
    return Tokenizer(encode, digest)


def _fast(folder: Path, max_length: int) -> Callable[[list[str]], list[list[int]]]:
    from tokenizers import Tokenizer as Rust

    tokenizer = Rust.from_file(str(folder / _FILES[0]))
    tokenizer.enable_truncation(max_length)
    tokenizer.no_padding()
    return lambda texts: [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]


def _auto(folder: Path, max_length: int) -> Callable[[list[str]], list[list[int]]]:
    from transformers import AutoTokenizer  # two seconds of import, for old checkpoints only

    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    options = {"truncation": True, "max_length": max_length, "padding": False}
    return lambda texts: tokenizer(texts, return_attention_mask=False, **options)["input_ids"]


def _clean(text: str, index: int) -> str:
    if not isinstance(text, str):
        raise UserError(f"text {index} is not a string but {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can carry half of a surrogate pair, which no tokenizer takes
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
