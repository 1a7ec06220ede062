"""The tensors of a checkpoint's files: listed from the headers, read one at a time. Nothing is unpickled."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from mig_jax.core.errors import UserError

FLOATS = ("F64", "F32", "F16", "BF16")


class Tensor(NamedTuple):
    """A tensor of a file, by the file's header.

    Args:
      key: its name in a Hugging Face checkpoint.
      shape, dtype: dtype by safetensors' names (F32, BF16, I64); F32 for tensors that are quantised in the file.
      file: the file that contains it.
      read: reads and returns the numbers, at each call again.
    """

    key: str
    shape: tuple[int, ...]
    dtype: str
    file: Path
    read: Callable[[], np.ndarray]


def safetensors(files: Sequence[Path]) -> list[Tensor]:
    """The tensors of .safetensors files, one or the shards of a checkpoint.

    Raises:
      UserError: naming every file that cannot be read.
    """
    tensors, wrong = [], []
    for file in files:
        if file.suffix != ".safetensors":
            wrong.append(f"{file}: not .safetensors; pickled weights (.bin, .pt) can run code and are not read")
            continue
        try:
            with safe_open(file, framework="numpy") as reader:
                for key in reader.keys():  # noqa: SIM118 (a reader is no dict)
                    view = reader.get_slice(key)
                    tensors.append(Tensor(key, tuple(view.get_shape()), view.get_dtype(), file, _reader(file, key)))
        except (SafetensorError, OSError) as error:
            state = f"{file.stat().st_size} bytes" if file.is_file() else "no such file"
            wrong.append(f"{file}: cut short or not safetensors ({state}; {error})")
    if wrong:
        raise UserError("\n".join(wrong))
    return tensors


def _reader(file: Path, key: str) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        with safe_open(file, framework="numpy") as reader:
            return reader.get_tensor(key)

    return read
