"""Insert JSON values into a row. All other bytes stay as they are: the row is not parsed and written again."""

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
# Everything up to the next bracket (strings are skipped as a whole), and the bracket; group 1 is an opening bracket.
_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|' + STRING + rb")*+(?:([\[{])|[\]}])", re.DOTALL)
_NEXT = re.compile(_SPACE + b"([,}])" + _SPACE)

Tree: TypeAlias = "dict[bytes, bytes | Tree]"


class _Style(NamedTuple):
    """The bytes between members, and between a key and its value."""

    comma: bytes
    colon: bytes


_SPACED, _COMPACT = _Style(b", ", b": "), _Style(b",", b":")


class _Object(NamedTuple):
    """An object in the row.

    Args:
      spans: start and end of the value of each requested key; of the last one, if a key is repeated.
      end: the offset after its last member, or after its opening brace if it is empty.
      empty: it has no members.
      style: the style of its first member.
    """

    spans: dict[bytes, tuple[int, int]]
    end: int
    empty: bool
    style: _Style


def spliced(raw: bytes, values: Mapping[Path, bytes]) -> bytes:
    """The row with each value at its path; all bytes outside the inserted values stay as they are.

    If the last key of a path exists, the bytes of its value are replaced. Otherwise the key becomes the last member of
    the innermost existing object on the path, in the style of that object's first member (``, `` and ``: `` as in
    ``json.dumps``, or without the spaces); several paths share the new objects. A value on a path that is not an object
    is replaced by an object. Keys are compared after unescaping. Of a repeated key the last one counts, as it does
    everywhere in this package. Inserting the same values again changes nothing.

    The time is linear in the length of the row, for each key of the longest path.

    Args:
      raw: a valid JSON object; blanks around it stay.
      values: JSON text by path. New keys are appended in this order. Without line breaks, if ``raw`` is one line.

    Raises:
      ValueError: not an object, an empty path, or one path is the beginning of another.
    """
    edits: list[tuple[int, int, bytes]] = []
    opening = _OPENING.match(raw)
    if opening is None:
        raise ValueError("the row is not a JSON object")
    pending = [(_tree(values), raw.index(b"{"), _SPACED)]
    while pending:
        tree, start, style = pending.pop()
        target = _scan_object(raw, start, tree, style)
        new: Tree = {}
        for key, value in tree.items():
            if key not in target.spans:
                new[key] = value
                continue
            start, end = target.spans[key]
            if isinstance(value, dict) and raw.startswith(b"{", start):
                pending.append((value, start, target.style))
            else:
                edits.append((start, end, _written(value, target.style)))
        if new:
            comma = b"" if target.empty else target.style.comma
            edits.append((target.end, target.end, comma + _written(new, target.style)[1:-1]))
    pieces, copied = [], 0
    for start, end, value in sorted(edits):
        pieces += (raw[copied:start], value)
        copied = end
    return b"".join((*pieces, raw[copied:]))


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
                raise ValueError(f"{'.'.join(path)}: another path is the beginning of this one")
            node = inner
        if last in node:
            raise ValueError(f"{'.'.join(path)}: it is the beginning of another path")
        node[last] = value.strip(BLANK)  # so that a second insertion replaces exactly these bytes
    return root


def _scan_object(raw: bytes, start: int, keys: Tree, style: _Style) -> _Object:
    """The object that opens at ``start``; ``style``: the style of the enclosing object, for an empty object."""
    spans: dict[bytes, tuple[int, int]] = {}
    position = _match(_OPENING, raw, start).end()
    if raw.startswith(b"}", position):
        return _Object(spans, start + 1, True, style)
    first = None
    while True:
        key = _match(_KEY, raw, position)
        first = first or (_SPACED if key[2] else _COMPACT)
        position, end = key.end(), _end(raw, key.end())
        name = key[1]
        name = json.loads(name).encode("utf-8", "surrogatepass") if b"\\" in name else name[1:-1]
        if name in keys:
            spans[name] = (position, end)
        comma = _match(_NEXT, raw, end)
        if comma[1] == b"}":
            return _Object(spans, end, False, first)
        position = comma.end()


def _end(raw: bytes, start: int) -> int:
    """The offset after the value that begins at ``start``."""
    if scalar := _SCALAR.match(raw, start):
        return scalar.end()
    depth = 0
    for bracket in _BRACKET.finditer(raw, start):
        depth += 1 if bracket.lastindex else -1
        if depth < 1:
            return bracket.end()
    raise ValueError(f"the row is not JSON (byte {start})")


def _match(pattern: re.Pattern[bytes], raw: bytes, start: int) -> re.Match[bytes]:
    match = pattern.match(raw, start)
    if match is None:
        raise ValueError(f"the row is not JSON (byte {start})")
    return match


def _written(value: "bytes | Tree", style: _Style) -> bytes:
    """A value as it is; a tree as a JSON object."""
    if not isinstance(value, dict):
        return value
    trees = [value]
    for tree in trees:  # the list grows during the loop: outer objects come first
        trees += [inner for inner in tree.values() if isinstance(inner, dict)]
    texts: dict[int, bytes] = {}
    for tree in reversed(trees):
        members = (
            json.dumps(key.decode("utf-8", "surrogatepass")).encode()
            + style.colon
            + (texts[id(inner)] if isinstance(inner, dict) else inner)
            for key, inner in tree.items()
        )
        texts[id(tree)] = b"{" + style.comma.join(members) + b"}"
    return texts[id(value)]
