"""One record's bytes -> the values at the fields' paths: a typed decoder, and a generic one that means the same.

The typed decoder skips everything that no path asks for at the speed of C and builds no dictionaries. Whatever does not
fit its types (a null on the way, a list with a hole, a number out of range) is decoded again in full and walked, so the
types can be narrow without a row being lost.
"""

import json
import math
from collections.abc import Callable, Sequence
from itertools import accumulate, chain, pairwise
from operator import attrgetter
from typing import Any

import msgspec

from mig_jax.pool.fields import Fields, Path
from mig_jax.pool.layouts import Layout, joined, turns_of, walk


class _Bad:
    """The value of a leaf that is there but of the wrong kind."""

    def __repr__(self) -> str:
        return "BAD"


BAD: Any = _Bad()


class Malformed(Exception):
    """The bytes are not JSON; the message says why."""


class NotAnObject(Exception):
    """The bytes are JSON, but no object."""


DOES_NOT_FIT = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What a typed decoder raises of a record that is malformed, or well formed with unusual values."""

_CONTENT = attrgetter("content")
_ANY = msgspec.json.Decoder()
_SYNTAX = msgspec.json.Decoder(msgspec.Raw)
# Where msgspec, like Python, stops converting digits to an int.
_MAX_DIGITS = 4300


def parse(raw: bytes) -> Any:
    """Any JSON text; numbers out of range become infinite.

    Raises:
      Malformed: it is not JSON (NaN and Infinity are not), not UTF-8, or nested too deeply.
    """
    try:
        try:
            return _ANY.decode(raw)
        except msgspec.ValidationError:
            # JSON sets no limit to its numbers; msgspec does. Its syntax check knows none, so only the numbers differ.
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
    at = message.rpartition("(byte ")[2].rstrip(")")
    if at.isdigit():
        here = raw[int(at) : int(at) + 8]
        for word in (b"NaN", b"Infinity"):
            if here.startswith(word):
                return f"{word.decode()} is not JSON (write null) (byte {at})"
    if message == "Input data was truncated":
        # msgspec says so of half a surrogate pair, too.
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
    """A finite float of an int or a float; None of anything else (True is not a number)."""
    if type(value) is float or type(value) is int:
        try:
            value = float(value)
        except OverflowError:
            return None
        return value if math.isfinite(value) else None
    return None


def _numbers(value: Any) -> Any:
    if type(value) is list:
        found = [number(item) for item in value]
        return BAD if None in found else found
    if value is None:
        return None
    one = number(value)
    return BAD if one is None else one


def _id(value: Any) -> Any:
    return value if type(value) is str or type(value) is int else None if value is None else BAD


def _source(value: Any) -> Any:
    if type(value) is list:
        return value if all(type(item) is str for item in value) else BAD
    return _text(value)


# For every kind of leaf: the type it has as a rule (None stands for missing and null), and the check that accepts that
# type, and perhaps more, in a decoded value. Both must agree wherever the type accepts.
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

    The values of a record are a tuple of ``width`` leaves: the dialog's, then those of ``slots``. A leaf is None where
    it is absent, BAD where it is of the wrong kind. ``get(typed(raw))`` gives them, or raises one of DOES_NOT_FIT; then
    ``walk(parse(raw))`` does. ``typed`` is None where two paths want different types of the same place.
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
          Malformed, NotAnObject: as ``parse`` and ``walk`` do.
        """
        if self.typed is not None:
            try:
                return self.get(self.typed(raw))
            except DOES_NOT_FIT:
                pass
        return self.walk(parse(raw))

    def walk(self, record: Any) -> tuple[Any, ...]:
        """The values of a decoded record.

        Raises:
          NotAnObject: it is none.
        """
        if type(record) is not dict:
            raise NotAnObject
        return tuple(
            [
                turns_of(walk(record, path), self.layout) if kind == "dialog" else _KINDS[kind][1](walk(record, path))
                for path, kind in self._leaves
            ]
        )

    def measure(self, columns: Sequence[Sequence[Any]]) -> tuple[list[int], list[int]]:
        """Turns, and characters of their contents, of each record; 0 without a dialog. Takes a column per leaf."""
        if self.layout.dialog:
            dialogs = [turns or () for turns in columns[0]] if None in columns[0] else columns[0]
            counts = list(map(len, dialogs))
            contents = map(_CONTENT, chain.from_iterable(dialogs))
            ends = list(accumulate(map(len, contents), initial=0))
            at = list(accumulate(counts, initial=0))
            return counts, [ends[b] - ends[a] for a, b in pairwise(at)]
        counts, chars = [], []
        for instruction, extra, output in zip(*columns[:3], strict=True):
            fits = type(instruction) is str and type(output) is str and extra is not BAD
            counts.append(2 if fits else 0)
            chars.append(len(joined(instruction, extra)) + len(output) if fits else 0)
        return counts, chars


def _no_getter(_: Any) -> tuple[Any, ...]:
    raise AssertionError("there is no typed decoder")


def _typed(
    leaves: list[tuple[Path, str]], layout: Layout
) -> tuple[Callable[[bytes], Any], Callable[[Any], tuple]] | None:
    """Decoder and getter; None where two paths want different types of the same place."""
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
    """A struct for each level. Attributes are numbered, since a key need not be an identifier."""
    members: list[tuple[str, Any, Any]] = []
    rename: dict[str, str] = {}
    for i, (key, kind) in enumerate(tree.items()):
        attribute = f"f{i}"
        rename[attribute] = key
        names[(*path, key)] = dotted + attribute
        if type(kind) is dict:
            # Its default is an empty instance, so one attrgetter reaches every leaf of every record.
            inner = _struct(kind, (*path, key), f"{dotted}{attribute}.", dialog, names)
            members.append((attribute, inner, inner()))
        else:
            members.append((attribute, dialog if kind == "dialog" else _KINDS[kind][0], None))
    return msgspec.defstruct("Row", members, rename=rename, frozen=True, gc=False)
