"""JSON values put into a row that stays otherwise what it is, byte for byte: no parser writes the row again."""

import json
import re
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from mig_jax.pool.fields import Path
from mig_jax.pool.records import BLANK, STRING

_SPACE = rb"[ \t\r\n]*+"
_OPENING = re.compile(_SPACE + rb"\{" + _SPACE)
_KEY = re.compile(b"(" + STRING + b")" + _SPACE + b":(" + _SPACE + b")", re.DOTALL)
_SCALAR = re.compile(STRING + rb'|[^"\[\]{},: \t\r\n]++', re.DOTALL)
# Everything up to the next bracket, strings whole, and the bracket; an opening one is a group.
_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|' + STRING + rb")*+(?:([\[{])|[\]}])", re.DOTALL)
_NEXT = re.compile(_SPACE + b"([,}])" + _SPACE)

Tree: TypeAlias = "dict[bytes, bytes | Tree]"


class _Style(NamedTuple):
    """What stands between members, and between a key and its value."""

    comma: bytes
    colon: bytes


_SPACED, _COMPACT = _Style(b", ", b": "), _Style(b",", b":")


class _Object(NamedTuple):
    """An object of the row.

    Args:
      found: start and end of the values of the keys that are wanted, of a key that is there twice the last.
      end: behind its last member; behind its brace where it has none.
      empty: it has none.
      style: as its first member is written.
    """

    found: dict[bytes, tuple[int, int]]
    end: int
    empty: bool
    style: _Style


def spliced(raw: bytes, values: Mapping[Path, bytes]) -> bytes:
    """The row with each value at its path; every byte that is not part of a value put in stays.

    Where the path's last key exists, the bytes of its value are replaced. Where it does not, it becomes the last member
    of the innermost object on its way that does, written as that object's first member is (``, `` and ``: `` of
    ``json.dumps``, or neither space); several paths share what has to be made. What lies on the way and is no object is
    replaced by one. Keys are compared as they read, not as they are escaped. Of a key that is there twice the last
    counts, as it does to every reader here. The same values once more change nothing.

    Takes time linear in the row for each key of the longest path.

    Args:
      raw: a JSON object, valid; blanks around it stay.
      values: JSON texts by path, which come in this order where they are new; on one line if ``raw`` is to stay on one.

    Raises:
      ValueError: no object, an empty path, or a path that goes on inside another's value.
    """
    edits: list[tuple[int, int, bytes]] = []
    opening = _OPENING.match(raw)
    if opening is None:
        raise ValueError("the row is not a JSON object")
    waiting = [(_tree(values), raw.index(b"{"), _SPACED)]
    while waiting:
        wanted, start, style = waiting.pop()
        here = _look(raw, start, wanted, style)
        new: Tree = {}
        for key, value in wanted.items():
            if key not in here.found:
                new[key] = value
                continue
            start, end = here.found[key]
            if isinstance(value, dict) and raw.startswith(b"{", start):
                waiting.append((value, start, here.style))
            else:
                edits.append((start, end, _written(value, here.style)))
        if new:
            comma = b"" if here.empty else here.style.comma
            edits.append((here.end, here.end, comma + _written(new, here.style)[1:-1]))
    pieces, done = [], 0
    for start, end, value in sorted(edits):
        pieces += (raw[done:start], value)
        done = end
    return b"".join((*pieces, raw[done:]))


def _tree(values: Mapping[Path, bytes]) -> Tree:
    """The paths as nested keys, in UTF-8."""
    root: Tree = {}
    for path, value in values.items():
        if not path:
            raise ValueError("an empty path")
        node = root
        *outer, last = (key.encode("utf-8", "surrogatepass") for key in path)
        for key in outer:
            inner = node.setdefault(key, {})
            if not isinstance(inner, dict):
                raise ValueError(f"{'.'.join(path)}: goes on inside another value")
            node = inner
        if last in node:
            raise ValueError(f"{'.'.join(path)}: another path goes on inside it")
        node[last] = value.strip(BLANK)  # else the next time would find less than it put in
    return root


def _look(raw: bytes, start: int, wanted: Tree, style: _Style) -> _Object:
    """The object that opens at ``start``; ``style``: of the object around it, which an empty one takes."""
    found: dict[bytes, tuple[int, int]] = {}
    at = _match(_OPENING, raw, start).end()
    if raw.startswith(b"}", at):
        return _Object(found, start + 1, True, style)
    first = None
    while True:
        key = _match(_KEY, raw, at)
        first = first or (_SPACED if key[2] else _COMPACT)
        at, end = key.end(), _end(raw, key.end())
        name = key[1]
        name = json.loads(name).encode("utf-8", "surrogatepass") if b"\\" in name else name[1:-1]
        if name in wanted:
            found[name] = (at, end)
        comma = _match(_NEXT, raw, end)
        if comma[1] == b"}":
            return _Object(found, end, False, first)
        at = comma.end()


def _end(raw: bytes, at: int) -> int:
    """Behind the value that starts there."""
    if scalar := _SCALAR.match(raw, at):
        return scalar.end()
    depth = 0
    for bracket in _BRACKET.finditer(raw, at):
        depth += 1 if bracket.lastindex else -1
        if depth < 1:
            return bracket.end()
    raise ValueError(f"the row is not JSON (byte {at})")


def _match(pattern: re.Pattern[bytes], raw: bytes, at: int) -> re.Match[bytes]:
    found = pattern.match(raw, at)
    if found is None:
        raise ValueError(f"the row is not JSON (byte {at})")
    return found


def _written(value: "bytes | Tree", style: _Style) -> bytes:
    """A value, or the object made of what the rest of a path leads to."""
    if not isinstance(value, dict):
        return value
    trees = [value]
    for tree in trees:  # grows while it is gone through: outer objects come first
        trees += [inner for inner in tree.values() if isinstance(inner, dict)]
    made: dict[int, bytes] = {}
    for tree in reversed(trees):
        members = (
            json.dumps(key.decode("utf-8", "surrogatepass")).encode()
            + style.colon
            + (made[id(inner)] if isinstance(inner, dict) else inner)
            for key, inner in tree.items()
        )
        made[id(tree)] = b"{" + style.comma.join(members) + b"}"
    return made[id(value)]
