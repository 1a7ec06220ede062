"""Records in, columns out: what grows while a pool is read."""

import math
from array import array
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Any
from zlib import crc32

import msgspec
import numpy as np

from mig_jax.core.errors import UserError
from mig_jax.pool.decode import BAD, DOES_NOT_FIT, Malformed, NotAnObject, RowDecoder, parse
from mig_jax.pool.fields import Fields
from mig_jax.pool.layouts import why_no_dialog
from mig_jax.pool.records import Block
from mig_jax.pool.table import ABSENT, BAD_VALUE, PRESENT, REASONS, REJECTS_LISTED, Pool, Reject, SourceInfo

HEAD_BYTES = 200
_MALFORMED, _NOT_AN_OBJECT, _NO_DIALOG = (
    REASONS.index(reason) for reason in ("malformed", "not an object", "no dialog")
)
_LISTS = ("tag", "quality", "complexity")
_TYPES = {
    "file": "i", "line": "q", "offset": "q", "length": "q", "crc": "I", "status": "B", "turns": "i", "chars": "q",
    "tag": "i", "tag count": "i", "tag state": "B",
    "quality": "d", "quality count": "i", "quality state": "B",
    "complexity": "d", "complexity count": "i", "complexity state": "B",
    "ifd": "d", "tokens": "q", "source": "i", "id length": "i",
}  # fmt: skip
_ONLY_LISTS = {list}


class _Names(dict[str, int]):
    """A name's number, given out as names turn up."""

    def __missing__(self, name: str) -> int:
        self[name] = number = len(self)
        return number


class Builder:
    """Appends blocks of records; ``finish`` makes the pool.

    Args:
      fields: where the values lie.
      skip: count malformed rows and rows that are no objects instead of stopping there.
    """

    def __init__(self, fields: Fields, skip: bool):
        self.skip = skip
        self._fields = fields
        # Typed arrays: eight bytes a value, where a list of Python ints takes five times that.
        self._arrays = {name: array(code) for name, code in _TYPES.items()}
        self._arrays |= {f"column {name}": array("d") for name in fields.columns}
        self._arrays |= {f"state of {name}": array("B") for name in fields.columns}
        self._tag_names, self._source_names = _Names(), _Names()
        self._id_blob = bytearray()
        self._rejects: list[Reject] = []

    def __len__(self) -> int:
        return len(self._arrays["file"])

    def add(self, block: Block, file: int, path: str, decoder: RowDecoder) -> None:
        """Appends every record of the block.

        Args:
          file, path: the index of its file in the pool's sources, and its name for messages.

        Raises:
          UserError: a record is malformed or no object, and the builder does not skip.
        """
        rows, codes = self._decode(block, path, decoder)
        # Column by column: a loop over rows that appends to twenty arrays costs five times as much as decoding them.
        columns = list(zip(*rows, strict=True))
        turns, chars = decoder.measure(columns)
        arrays = self._arrays
        arrays["turns"].extend(turns)
        arrays["chars"].extend(chars)
        self._statuses(block, path, decoder, codes, turns)
        slots = {name: [columns[i] for i in at] for name, at in decoder.slots.items()}
        self._tags(*slots["tags"])
        self._numbers("quality", *slots["quality"])
        self._numbers("complexity", *slots["complexity"])
        arrays["ifd"].extend(_singles(*slots["ifd"]))
        self._ids(_first_of(slots["id"]))
        arrays["tokens"].extend(_token_counts(_first_of(slots["tokens"])))
        self._sources(*slots["source"])
        for name in self._fields.columns:
            (found,) = slots[f"column {name}"]
            values = _singles([_mean(f) for f in found] if list in set(map(type, found)) else found)
            arrays[f"column {name}"].extend(values)
            arrays[f"state of {name}"].extend(
                [
                    ABSENT if f is None else BAD_VALUE if math.isnan(v) else PRESENT
                    for f, v in zip(found, values, strict=True)
                ]
            )
        arrays["file"].extend(array("i", (file,)) * len(rows))
        arrays["line"].extend(block.lines)
        arrays["offset"].extend(block.offsets)
        arrays["length"].extend(map(len, block.records))
        arrays["crc"].extend(map(crc32, block.records))

    def part(self, lines: int) -> "Part":
        """What was appended, for another builder; ``lines``: how many were read for it."""
        rejects = [(r.row, r.line, r.reason, r.detail, r.head) for r in self._rejects]
        arrays = {name: values.tobytes() for name, values in self._arrays.items()}
        return Part(lines, arrays, [*self._tag_names], [*self._source_names], bytes(self._id_blob), rejects)

    def join(self, part: "Part", file: int, path: str, line: int) -> None:
        """Appends another builder's rows, of one file; ``line``: how many lines lie before them."""
        rows, names = len(self), self._tag_names
        tag_of = np.array([names[name] for name in part.tags], np.int32)
        source_of = np.array([*(self._source_names[name] for name in part.sources), -1], np.int32)  # -1 stays -1
        for name, raw in part.arrays.items():
            values = np.frombuffer(raw, self._arrays[name].typecode)
            if name == "tag" and len(values):
                values = tag_of[values]
            elif name == "source":
                values = source_of[values]
            elif name == "file":
                values = np.full(len(values), file, np.int32)
            elif name == "line":
                values = values + line
            self._arrays[name].frombytes(values.tobytes())
        self._id_blob += part.ids
        for row, at, reason, detail, head in part.rejects[: REJECTS_LISTED - len(self._rejects)]:
            self._rejects.append(Reject(rows + row, path, line + at, reason, detail, head))

    def _decode(
        self, block: Block, path: str, decoder: RowDecoder
    ) -> tuple[list[tuple[Any, ...]], dict[int, tuple[int, str]]]:
        """The leaves of every record, and for those that have none why: (index into REASONS, detail)."""
        nothing = (None,) * decoder.width
        codes: dict[int, tuple[int, str]] = {}
        rows: list[tuple[Any, ...]] = []
        bad, append, typed, get = block.bad, rows.append, decoder.typed, decoder.get
        for i, raw in enumerate(block.records):
            # The common case, without a call between it and the decoder.
            if typed and block.objects is None and i not in bad:
                try:
                    append(get(typed(raw)))
                    continue
                except DOES_NOT_FIT:
                    pass
            try:
                if i in bad:
                    raise Malformed(bad[i])
                append(decoder.walk(parse(raw) if block.objects is None else block.objects[i]))
            except Malformed as error:
                codes[i] = _MALFORMED, str(error)
                append(nothing)
            except NotAnObject:
                codes[i] = _NOT_AN_OBJECT, "a record is a JSON object {...}"
                append(nothing)
        return rows, codes

    def _statuses(
        self, block: Block, path: str, decoder: RowDecoder, codes: dict[int, tuple[int, str]], turns: list[int]
    ) -> None:
        """Appends the status of every row; those without a turn are rejects."""
        status = bytearray(len(turns))
        if 0 in turns:
            for i in (i for i, count in enumerate(turns) if not count):
                status[i], detail = codes.get(i, (_NO_DIALOG, ""))
                raw, reason = block.records[i], REASONS[status[i]]
                where = f"{path}:{block.lines[i]}"
                if not self.skip and i in codes:
                    raise UserError(f"{where}: {reason}: {detail} (pool.on_error=skip counts such rows and goes on)")
                if len(self._rejects) < REJECTS_LISTED:
                    detail = detail or why_no_dialog(parse(raw), decoder.layout)
                    row = len(self) + i
                    self._rejects.append(Reject(row, path, block.lines[i], reason, detail, raw[:HEAD_BYTES]))
        self._arrays["status"].frombytes(status)

    def _lists(self, name: str, found: Sequence[Any]) -> Sequence[list[Any]]:
        """Appends states and lengths of a column of lists (or None, or BAD); gives the lists."""
        if set(map(type, found)) == _ONLY_LISTS:
            self._arrays[f"{name} state"].frombytes(bytes(len(found)))
        else:
            self._arrays[f"{name} state"].extend(
                [ABSENT if f is None else BAD_VALUE if f is BAD else PRESENT for f in found]
            )
            found = [f if type(f) is list else [] for f in found]
        self._arrays[f"{name} count"].extend(map(len, found))
        return found

    def _tags(self, found: Sequence[Any]) -> None:
        lists = self._lists("tag", found)
        self._arrays["tag"].extend(map(self._tag_names.__getitem__, chain.from_iterable(lists)))

    def _numbers(self, name: str, found: Sequence[Any]) -> None:
        lists = self._lists(name, [[f] if type(f) is float else f for f in found])
        self._arrays[name].extend(chain.from_iterable(lists))

    def _ids(self, found: Sequence[Any]) -> None:
        texts = ["" if f is None else str(f) for f in found]
        blob = "".join(texts).encode()
        self._id_blob += blob
        # Where every character is one byte, the lengths are the same.
        self._arrays["id length"].extend(map(len, texts) if blob.isascii() else [len(text.encode()) for text in texts])

    def _sources(self, found: Sequence[Any]) -> None:
        names = [(f[0] if f else None) if type(f) is list else f for f in found]
        self._arrays["source"].extend([self._source_names[name] if type(name) is str else -1 for name in names])

    def finish(self, sources: Sequence[SourceInfo], fields: dict[str, str]) -> Pool:
        """The pool of all that was appended."""
        arrays = {name: _frozen(values, values.typecode) for name, values in self._arrays.items()}
        lists = {f"{name}_ptr": _pointers(self._arrays[f"{name} count"]) for name in _LISTS}
        lists |= {f"{name}_state": arrays[f"{name} state"] for name in _LISTS}
        same = ("file", "line", "offset", "length", "crc", "status", "quality", "complexity", "ifd", "tokens", "turns")
        return Pool(
            sources=tuple(sources),
            tag_names=tuple(self._tag_names),
            tag_idx=arrays["tag"],
            columns={name: arrays[f"column {name}"] for name in self._fields.columns},
            columns_state={name: arrays[f"state of {name}"] for name in self._fields.columns},
            source_names=tuple(self._source_names),
            source_idx=arrays["source"],
            id_ptr=_pointers(self._arrays["id length"]),
            id_blob=_frozen(self._id_blob, np.uint8),
            chars=arrays["chars"],
            rejects=tuple(self._rejects),
            fields=fields,
            **{name: arrays[name] for name in same},
            **lists,
        )


class Part(msgspec.Struct, array_like=True, gc=False):
    """A builder's rows on their way from one process to another: lines and rejects count from the part's start."""

    lines: int
    arrays: dict[str, bytes]
    tags: list[str]
    sources: list[str]
    ids: bytes
    rejects: list[tuple[int, int, str, str, bytes]]


def _singles(found: Sequence[Any]) -> Sequence[float]:
    """The number of a number, or of a list of one; NaN of anything else."""
    types = set(map(type, found))
    if types == {float}:
        return found
    if types == {type(None)}:
        return array("d", (math.nan,)) * len(found)
    return [f if type(f) is float else f[0] if type(f) is list and len(f) == 1 else math.nan for f in found]


def _mean(found: Any) -> Any:
    """Of a list of numbers, one a turn (CaR's scores are), their mean."""
    return math.fsum(found) / len(found) if type(found) is list and found else found


def _first_of(candidates: Sequence[Sequence[Any]]) -> Sequence[Any]:
    """The first candidate of each row that has a value of the right kind, else None."""
    first, *others = [[None if f is BAD else f for f in column] if BAD in column else column for column in candidates]
    for other in others:
        if None not in first:
            break
        first = [b if a is None else a for a, b in zip(first, other, strict=True)]
    return first


def _token_counts(found: Sequence[Any]) -> Sequence[int]:
    if set(map(type, found)) == {type(None)}:
        return array("q", (-1,)) * len(found)
    # NaN fails the comparison.
    return [int(value) if 0 <= value < 2**62 and value.is_integer() else -1 for value in _singles(found)]


def _frozen(values: Any, dtype: Any) -> np.ndarray:
    # The buffer is shared, not copied: the builder is done with it.
    found = np.frombuffer(values, dtype=dtype)
    found.flags.writeable = False
    return found


def _pointers(counts: array) -> np.ndarray:
    return _frozen(array("q", accumulate(counts, initial=0)), np.int64)
