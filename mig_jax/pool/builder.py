"""``Builder``: appends the records of a pool to typed columns while the pool is read."""

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
from mig_jax.pool.layouts import no_dialog_reason
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


class _NameIndex(dict[str, int]):
    """Name -> number, in the order of first lookup."""

    def __missing__(self, name: str) -> int:
        self[name] = number = len(self)
        return number


class Builder:
    """Append blocks of records; ``finish`` makes the pool.

    Args:
      fields: the paths of the values in a record.
      skip: count malformed rows and rows that are not objects, instead of raising an error.
    """

    def __init__(self, fields: Fields, skip: bool):
        self.skip = skip
        self._fields = fields
        # Typed arrays take eight bytes a value; a list of Python ints takes five times as much.
        self._arrays = {name: array(code) for name, code in _TYPES.items()}
        self._arrays |= {f"column {name}": array("d") for name in fields.columns}
        self._arrays |= {f"state of {name}": array("B") for name in fields.columns}
        self._tag_names, self._source_names = _NameIndex(), _NameIndex()
        self._id_blob = bytearray()
        self._rejects: list[Reject] = []

    def __len__(self) -> int:
        return len(self._arrays["file"])

    def add(self, block: Block, file: int, path: str, decoder: RowDecoder) -> None:
        """Append every record of the block.

        Args:
          file, path: the index of the block's file in the pool's sources, and its path for messages.

        Raises:
          UserError: a record is malformed or not an object, and ``skip`` is false.
        """
        rows, codes = self._decode(block, path, decoder)
        # Column by column: a loop over rows that appends to twenty arrays takes five times as long as decoding them.
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
        arrays["ifd"].extend(_scalars(*slots["ifd"]))
        self._ids(_first_valid(slots["id"]))
        arrays["tokens"].extend(_token_counts(_first_valid(slots["tokens"])))
        self._sources(*slots["source"])
        for name in self._fields.columns:
            (leaves,) = slots[f"column {name}"]
            values = _scalars([_mean(leaf) for leaf in leaves] if list in set(map(type, leaves)) else leaves)
            arrays[f"column {name}"].extend(values)
            arrays[f"state of {name}"].extend(
                [
                    ABSENT if leaf is None else BAD_VALUE if math.isnan(value) else PRESENT
                    for leaf, value in zip(leaves, values, strict=True)
                ]
            )
        arrays["file"].extend(array("i", (file,)) * len(rows))
        arrays["line"].extend(block.lines)
        arrays["offset"].extend(block.offsets)
        arrays["length"].extend(map(len, block.records))
        arrays["crc"].extend(map(crc32, block.records))

    def part(self, lines: int) -> "Part":
        """The appended rows, for another builder's ``join``; ``lines``: the number of lines that were read."""
        rejects = [(r.row, r.line, r.reason, r.detail, r.head) for r in self._rejects]
        arrays = {name: values.tobytes() for name, values in self._arrays.items()}
        return Part(lines, arrays, [*self._tag_names], [*self._source_names], bytes(self._id_blob), rejects)

    def join(self, part: "Part", file: int, path: str, line: int) -> None:
        """Append another builder's rows, all of one file; ``line``: the number of lines before them in the file."""
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
        for row, offset, reason, detail, head in part.rejects[: REJECTS_LISTED - len(self._rejects)]:
            self._rejects.append(Reject(rows + row, path, line + offset, reason, detail, head))

    def _decode(
        self, block: Block, path: str, decoder: RowDecoder
    ) -> tuple[list[tuple[Any, ...]], dict[int, tuple[int, str]]]:
        """The leaves of every record; and, for each record without leaves, (index into REASONS, detail)."""
        no_leaves = (None,) * decoder.width
        codes: dict[int, tuple[int, str]] = {}
        rows: list[tuple[Any, ...]] = []
        bad, append, typed, get = block.bad, rows.append, decoder.typed, decoder.get
        for i, raw in enumerate(block.records):
            # The common case calls the decoder directly.
            if typed and block.objects is None and i not in bad:
                try:
                    append(get(typed(raw)))
                    continue
                except DOES_NOT_FIT:
                    pass
            try:
                if i in bad:
                    raise Malformed(bad[i])
                append(decoder.extract(parse(raw) if block.objects is None else block.objects[i]))
            except Malformed as error:
                codes[i] = _MALFORMED, str(error)
                append(no_leaves)
            except NotAnObject:
                codes[i] = _NOT_AN_OBJECT, "a record must be a JSON object {...}"
                append(no_leaves)
        return rows, codes

    def _statuses(
        self, block: Block, path: str, decoder: RowDecoder, codes: dict[int, tuple[int, str]], turns: list[int]
    ) -> None:
        """Append the status of every row; rows without a turn are rejected."""
        status = bytearray(len(turns))
        if 0 in turns:
            for i in (i for i, count in enumerate(turns) if not count):
                status[i], detail = codes.get(i, (_NO_DIALOG, ""))
                raw, reason = block.records[i], REASONS[status[i]]
                if not self.skip and i in codes:
                    raise UserError(
                        f"{reason}: {detail} (pool.on_error=skip counts such rows and continues)",
                        where=f"{path}:{block.lines[i]}",
                    )
                if len(self._rejects) < REJECTS_LISTED:
                    detail = detail or no_dialog_reason(parse(raw), decoder.layout)
                    row = len(self) + i
                    self._rejects.append(Reject(row, path, block.lines[i], reason, detail, raw[:HEAD_BYTES]))
        self._arrays["status"].frombytes(status)

    def _lists(self, name: str, leaves: Sequence[Any]) -> Sequence[list[Any]]:
        """Append states and lengths of a column of lists, None and BAD; return the lists, empty for None and BAD."""
        if set(map(type, leaves)) == _ONLY_LISTS:
            self._arrays[f"{name} state"].frombytes(bytes(len(leaves)))
        else:
            self._arrays[f"{name} state"].extend(
                [ABSENT if leaf is None else BAD_VALUE if leaf is BAD else PRESENT for leaf in leaves]
            )
            leaves = [leaf if type(leaf) is list else [] for leaf in leaves]
        self._arrays[f"{name} count"].extend(map(len, leaves))
        return leaves

    def _tags(self, leaves: Sequence[Any]) -> None:
        lists = self._lists("tag", leaves)
        self._arrays["tag"].extend(map(self._tag_names.__getitem__, chain.from_iterable(lists)))

    def _numbers(self, name: str, leaves: Sequence[Any]) -> None:
        lists = self._lists(name, [[leaf] if type(leaf) is float else leaf for leaf in leaves])
        self._arrays[name].extend(chain.from_iterable(lists))

    def _ids(self, leaves: Sequence[Any]) -> None:
        texts = ["" if leaf is None else str(leaf) for leaf in leaves]
        blob = "".join(texts).encode()
        self._id_blob += blob
        # In ASCII text a character is one byte, so both lengths are equal.
        self._arrays["id length"].extend(map(len, texts) if blob.isascii() else [len(text.encode()) for text in texts])

    def _sources(self, leaves: Sequence[Any]) -> None:
        names = [(leaf[0] if leaf else None) if type(leaf) is list else leaf for leaf in leaves]
        self._arrays["source"].extend([self._source_names[name] if type(name) is str else -1 for name in names])

    def finish(self, sources: Sequence[SourceInfo], fields: dict[str, str]) -> Pool:
        """The pool of all appended rows."""
        arrays = {name: _frozen(values, values.typecode) for name, values in self._arrays.items()}
        lists = {f"{name}_ptr": _pointers(self._arrays[f"{name} count"]) for name in _LISTS}
        lists |= {f"{name}_state": arrays[f"{name} state"] for name in _LISTS}
        unchanged = (
            "file",
            "line",
            "offset",
            "length",
            "crc",
            "status",
            "quality",
            "complexity",
            "ifd",
            "tokens",
            "turns",
        )
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
            **{name: arrays[name] for name in unchanged},
            **lists,
        )


class Part(msgspec.Struct, array_like=True, gc=False):
    """A builder's rows, to send to another process. Line numbers and rejected rows count from the start of the part."""

    lines: int
    arrays: dict[str, bytes]
    tags: list[str]
    sources: list[str]
    ids: bytes
    rejects: list[tuple[int, int, str, str, bytes]]


def _scalars(leaves: Sequence[Any]) -> Sequence[float]:
    """Each leaf as a float: a number, or the number in a list of length 1; NaN for anything else."""
    types = set(map(type, leaves))
    if types == {float}:
        return leaves
    if types == {type(None)}:
        return array("d", (math.nan,)) * len(leaves)
    return [
        leaf if type(leaf) is float else leaf[0] if type(leaf) is list and len(leaf) == 1 else math.nan
        for leaf in leaves
    ]


def _mean(leaf: Any) -> Any:
    """The mean of a non-empty list of numbers, one per turn (as CaR's scores are); any other leaf as it is."""
    return math.fsum(leaf) / len(leaf) if type(leaf) is list and leaf else leaf


def _first_valid(candidates: Sequence[Sequence[Any]]) -> Sequence[Any]:
    """For each row, the first candidate with a value of the right kind, else None."""
    first, *others = [
        [None if leaf is BAD else leaf for leaf in column] if BAD in column else column for column in candidates
    ]
    for other in others:
        if None not in first:
            break
        first = [b if a is None else a for a, b in zip(first, other, strict=True)]
    return first


def _token_counts(leaves: Sequence[Any]) -> Sequence[int]:
    if set(map(type, leaves)) == {type(None)}:
        return array("q", (-1,)) * len(leaves)
    # NaN fails the comparison.
    return [int(value) if 0 <= value < 2**62 and value.is_integer() else -1 for value in _scalars(leaves)]


def _frozen(values: Any, dtype: Any) -> np.ndarray:
    # The buffer is shared, not copied: the builder no longer writes to it.
    frozen = np.frombuffer(values, dtype=dtype)
    frozen.flags.writeable = False
    return frozen


def _pointers(counts: array) -> np.ndarray:
    return _frozen(array("q", accumulate(counts, initial=0)), np.int64)
