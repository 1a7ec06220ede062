"""One record's bytes -> the values at the fields' paths: a typed decoder, and a generic one with the same results.

The typed decoder skips all other values in C and builds no dictionaries. A record that does not fit its types (an outer
value is null, a list contains null, a number is out of range) is decoded again without types and traversed, so that
the types can be narrow and no row is lost.
"""

import json
import math
from collections.abc import Callable, Sequence
from itertools import accumulate, chain, pairwise
from operator import attrgetter
from typing import Any

import msgspec

from mig_jax.pool.fields import Fields, Path
from mig_jax.pool.layouts import Layout, get_path, join_input, turns_of


class _Bad:
    """The value of a leaf that is present but of the wrong kind."""

    def __repr__(self) -> str:
        return "BAD"


BAD: Any = _Bad()


class Malformed(Exception):
    """The bytes are not JSON; the message is the reason."""


class NotAnObject(Exception):
    """The bytes are JSON, but not an object."""


DOES_NOT_FIT = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""The errors of a typed decoder for a record that is malformed, or valid with unusual values."""

_CONTENT = attrgetter("content")
_ANY = msgspec.json.Decoder()
_SYNTAX = msgspec.json.Decoder(msgspec.Raw)
# The limit of msgspec, as of Python, for the digits of an int.
_MAX_DIGITS = 4300


def parse(raw: bytes) -> Any:
    """Parse any JSON text; numbers out of range become infinite.

    Raises:
      Malformed: it is not JSON (NaN and Infinity are not), not UTF-8, or nested too deeply.
    """
    try:
        try:
            return _ANY.decode(raw)
        except msgspec.ValidationError:
            # JSON has no limit for numbers; msgspec has one, except in its syntax check. If that check passes, a number
            # is out of range.
            _SYNTAX.decode(raw)
            return json.loads(raw.decode(), parse_int=_integer)
    except UnicodeDecodeError as error:
        raise Malformed(f"not UTF-8 ({error.reason})") from error
    except RecursionError as error:
        raise Malformed("nested too deeply") from error
    except msgspec.DecodeError as error:
        raise Malformed(_explain(raw, str(error))) from error


def _integer(digits: str) -> int | float:
    return (
        int(digits)
        if len(digits.lstrip("-")) <= _MAX_DIGITS
        else math.copysign(math.inf, -1 if digits[0] == "-" else 1)
    )


def _explain(raw: bytes, message: str) -> str:
    offset = message.rpartition("(byte ")[2].rstrip(")")
    if offset.isdigit():
        tail = raw[int(offset) : int(offset) + 8]
        for word in (b"NaN", b"Infinity"):
            if tail.startswith(word):
                return f"{word.decode()} is not JSON (write null) (byte {offset})"
    if message == "Input data was truncated":
        # msgspec has the same message for half of a surrogate pair.
        half = rb"\ud" in raw.lower() and raw.rstrip().endswith((b"}", b"]"))
        return r"half of a surrogate pair (\ud...), or cut short" if half else "cut short"
    return message.removeprefix("JSON is malformed: ")


def _text(value: Any) -> Any:
    return value if value is None or type(value) is str else BAD


def _tags(value: Any) -> Any:
    if type(value) is not list:
        return None if value is None else BAD
    # InsTag's own output is a list of {"tag": ..., "explanation": ...}.
    tags = [item.get("tag") if type(item) is dict else item for item in value]
    return tags if all(type(tag) is str for tag in tags) else BAD


def number(value: Any) -> float | None:
    """An int or a float as a finite float; None for anything else (True is not a number)."""
    if type(value) is float or type(value) is int:
        try:
            value = float(value)
        except OverflowError:
            return None
        return value if math.isfinite(value) else None
    return None


def _numbers(value: Any) -> Any:
    if type(value) is list:
        numbers = [number(item) for item in value]
        return BAD if None in numbers else numbers
    if value is None:
        return None
    scalar = number(value)
    return BAD if scalar is None else scalar


def _id(value: Any) -> Any:
    return value if type(value) is str or type(value) is int else None if value is None else BAD


def _source(value: Any) -> Any:
    if type(value) is list:
        return value if all(type(item) is str for item in value) else BAD
    return _text(value)


# For every kind of leaf: the type of the typed decoder (None stands for missing and null), and the check of a decoded
# value. The check accepts at least every value of the type, and both give the same result for it.
_KINDS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "text": (str | None, _text),
    "tags": (list[str] | None, _tags),
    "numbers": (list[float] | float | None, _numbers),
    "id": (str | int | None, _id),
    "source": (str | list[str] | None, _source),
}
_FIELD_KINDS = {
    "tags": "tags",
    "quality": "numbers",
    "complexity": "numbers",
    "ifd": "numbers",
    "id": "id",
    "source": "source",
}
_FIELD_KINDS["tokens"] = "numbers"


class RowDecoder:
    """Values at the paths of one layout and one set of fields.

    The values of a record are a tuple of ``width`` leaves: those of the dialog, then those of ``slots``. A leaf is None
    if it is absent, BAD if it is of the wrong kind. ``get(typed(raw))`` returns the leaves or raises one of
    DOES_NOT_FIT; then ``extract(parse(raw))`` returns them. ``typed`` is None if two paths require different types
    of the same value.
    """

    def __init__(self, layout: Layout, fields: Fields, typed: bool = True):
        self.layout = layout
        self.slots: dict[str, tuple[int, ...]] = {}
        leaves: list[tuple[Path, str]] = [(path, "dialog" if layout.dialog else "text") for path in layout.paths]
        columns = ((f"column {name}", (path,)) for name, path in fields.columns.items())
        for name, candidates in (*fields.paths.items(), *columns):
            self.slots[name] = tuple(range(len(leaves), len(leaves) + len(candidates)))
            leaves.extend((path, _FIELD_KINDS.get(name, "numbers")) for path in candidates)
        self.width = len(leaves)
        self._leaves = leaves
        built = _typed(leaves, layout) if typed else None
        self.typed, self.get = built or (None, _no_getter)

    def leaves(self, raw: bytes) -> tuple[Any, ...]:
        """The values of one record.

        Raises:
          Malformed, NotAnObject: as ``parse`` and ``extract``.
        """
        if self.typed is not None:
            try:
                return self.get(self.typed(raw))
            except DOES_NOT_FIT:
                pass
        return self.extract(parse(raw))

    def extract(self, record: Any) -> tuple[Any, ...]:
        """The values of a decoded record.

        Raises:
          NotAnObject: the record is not an object.
        """
        if type(record) is not dict:
            raise NotAnObject
        return tuple(
            [
                turns_of(value, self.layout) if kind == "dialog" else _KINDS[kind][1](value)
                for value, kind in ((get_path(record, path), kind) for path, kind in self._leaves)
            ]
        )

    def measure(self, columns: Sequence[Sequence[Any]]) -> tuple[list[int], list[int]]:
        """Number of turns, and of characters in them, of each record; 0 without a dialog. ``columns``: one per leaf."""
        if self.layout.dialog:
            dialogs = [turns or () for turns in columns[0]] if None in columns[0] else columns[0]
            counts = list(map(len, dialogs))
            contents = map(_CONTENT, chain.from_iterable(dialogs))
            ends = list(accumulate(map(len, contents), initial=0))
            first_turns = accumulate(counts, initial=0)
            return counts, [ends[stop] - ends[start] for start, stop in pairwise(first_turns)]
        counts, chars = [], []
        for instruction, extra, output in zip(*columns[:3], strict=True):
            fits = type(instruction) is str and type(output) is str and extra is not BAD
            counts.append(2 if fits else 0)
            chars.append(len(join_input(instruction, extra)) + len(output) if fits else 0)
        return counts, chars


def _no_getter(_: Any) -> tuple[Any, ...]:
    raise AssertionError("there is no typed decoder")


def _typed(
    leaves: list[tuple[Path, str]], layout: Layout
) -> tuple[Callable[[bytes], Any], Callable[[Any], tuple]] | None:
    """Decoder and getter; None if two paths require different types of the same value."""
    turn = msgspec.defstruct(
        "Turn", [("role", str), ("content", str)], rename={"role": layout.role, "content": layout.content}, gc=False
    )
    tree: dict[str, Any] = {}
    for path, kind in leaves:
        *outer, last = path
        node = tree
        for key in outer:
            node = node.setdefault(key, {})
            if type(node) is not dict:
                return None
        if node.setdefault(last, kind) != kind:
            return None
    names: dict[Path, str] = {}
    row = _struct(tree, (), "", list[turn] | None, names)
    get = attrgetter(*(names[path] for path, _ in leaves))
    return msgspec.json.Decoder(row).decode, get


def _struct(tree: dict[str, Any], path: Path, dotted: str, dialog: Any, names: dict[Path, str]) -> type[msgspec.Struct]:
    """A struct for each level. Attributes are numbered, because a key need not be an identifier."""
    members: list[tuple[str, Any, Any]] = []
    rename: dict[str, str] = {}
    for i, (key, kind) in enumerate(tree.items()):
        attribute = f"f{i}"
        rename[attribute] = key
        names[(*path, key)] = dotted + attribute
        if type(kind) is dict:
            # The default is an empty instance, so that one attrgetter reaches every leaf of every record.
            inner = _struct(kind, (*path, key), f"{dotted}{attribute}.", dialog, names)
            members.append((attribute, inner, inner()))
        else:
            members.append((attribute, dialog if kind == "dialog" else _KINDS[kind][0], None))
    return msgspec.defstruct("Row", members, rename=rename, frozen=True, gc=False)
