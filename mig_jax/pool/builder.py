"""Records in, columns out: what grows while a pool is read."""

import math
from array import array
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Any
from zlib import crc32

import numpy as np

from mig_jax.errors import UserError
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
        self._file, self._line, self._offset, self._length = array("i"), array("q"), array("q"), array("q")
        self._crc, self._status = array("I"), array("B")
        self._counts = {name: array("i") for name in _LISTS}
        self._states = {name: array("B") for name in _LISTS}
        self._values = {"tag": array("i"), "quality": array("d"), "complexity": array("d")}
        self._ifd, self._tokens = array("d"), array("q")
        self._columns = {name: array("d") for name in fields.columns}
        self._column_states = {name: array("B") for name in fields.columns}
        self._tag_names, self._source_names = _Names(), _Names()
        self._source = array("i")
        self._id_blob, self._id_length = bytearray(), array("i")
        self._turns, self._chars = array("i"), array("q")
        self._rejects: list[Reject] = []

    def __len__(self) -> int:
        return len(self._file)

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
        self._turns.extend(turns)
        self._chars.extend(chars)
        self._statuses(block, path, decoder, codes, turns)
        slots = {name: [columns[i] for i in at] for name, at in decoder.slots.items()}
        self._tags(*slots["tags"])
        self._numbers("quality", *slots["quality"])
        self._numbers("complexity", *slots["complexity"])
        self._ifd.extend(_singles(*slots["ifd"]))
        self._ids(_first_of(slots["id"]))
        self._tokens.extend(_token_counts(_first_of(slots["tokens"])))
        self._sources(*slots["source"])
        for name in self._fields.columns:
            (found,) = slots[f"column {name}"]
            values = _singles(found)
            self._columns[name].extend(values)
            self._column_states[name].extend(
                [
                    ABSENT if f is None else BAD_VALUE if math.isnan(v) else PRESENT
                    for f, v in zip(found, values, strict=True)
                ]
            )
        self._file.extend(array("i", (file,)) * len(rows))
        self._line.extend(block.lines)
        self._offset.extend(block.offsets)
        self._length.extend(map(len, block.records))
        self._crc.extend(map(crc32, block.records))

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
                    row = len(self._file) + i
                    self._rejects.append(Reject(row, path, block.lines[i], reason, detail, raw[:HEAD_BYTES]))
        self._status.frombytes(status)

    def _lists(self, name: str, found: Sequence[Any]) -> Sequence[list[Any]]:
        """Appends states and lengths of a column of lists (or None, or BAD); gives the lists."""
        if set(map(type, found)) == _ONLY_LISTS:
            self._states[name].frombytes(bytes(len(found)))
        else:
            self._states[name].extend([ABSENT if f is None else BAD_VALUE if f is BAD else PRESENT for f in found])
            found = [f if type(f) is list else [] for f in found]
        self._counts[name].extend(map(len, found))
        return found

    def _tags(self, found: Sequence[Any]) -> None:
        lists = self._lists("tag", found)
        self._values["tag"].extend(map(self._tag_names.__getitem__, chain.from_iterable(lists)))

    def _numbers(self, name: str, found: Sequence[Any]) -> None:
        lists = self._lists(name, [[f] if type(f) is float else f for f in found])
        self._values[name].extend(chain.from_iterable(lists))

    def _ids(self, found: Sequence[Any]) -> None:
        texts = ["" if f is None else str(f) for f in found]
        blob = "".join(texts).encode()
        self._id_blob += blob
        # Where every character is one byte, the lengths are the same.
        self._id_length.extend(map(len, texts) if blob.isascii() else [len(text.encode()) for text in texts])

    def _sources(self, found: Sequence[Any]) -> None:
        names = [(f[0] if f else None) if type(f) is list else f for f in found]
        self._source.extend([self._source_names[name] if type(name) is str else -1 for name in names])

    def finish(self, sources: Sequence[SourceInfo], fields: dict[str, str]) -> Pool:
        """The pool of all that was appended."""
        lists = {f"{name}_ptr": _pointers(self._counts[name]) for name in _LISTS}
        lists |= {f"{name}_state": _frozen(self._states[name], np.uint8) for name in _LISTS}
        return Pool(
            sources=tuple(sources),
            file=_frozen(self._file, np.int32),
            line=_frozen(self._line, np.int64),
            offset=_frozen(self._offset, np.int64),
            length=_frozen(self._length, np.int64),
            crc=_frozen(self._crc, np.uint32),
            status=_frozen(self._status, np.uint8),
            tag_names=tuple(self._tag_names),
            tag_idx=_frozen(self._values["tag"], np.int32),
            quality=_frozen(self._values["quality"], np.float64),
            complexity=_frozen(self._values["complexity"], np.float64),
            ifd=_frozen(self._ifd, np.float64),
            columns={name: _frozen(values, np.float64) for name, values in self._columns.items()},
            columns_state={name: _frozen(states, np.uint8) for name, states in self._column_states.items()},
            tokens=_frozen(self._tokens, np.int64),
            source_names=tuple(self._source_names),
            source_idx=_frozen(self._source, np.int32),
            id_ptr=_pointers(self._id_length),
            id_blob=_frozen(self._id_blob, np.uint8),
            turns=_frozen(self._turns, np.int32),
            chars=_frozen(self._chars, np.int64),
            rejects=tuple(self._rejects),
            fields=fields,
            **lists,
        )


def _singles(found: Sequence[Any]) -> Sequence[float]:
    """The number of a number, or of a list of one; NaN of anything else."""
    types = set(map(type, found))
    if types == {float}:
        return found
    if types == {type(None)}:
        return array("d", (math.nan,)) * len(found)
    return [f if type(f) is float else f[0] if type(f) is list and len(f) == 1 else math.nan for f in found]


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
