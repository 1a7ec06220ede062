"""Text of users, of files and of models is data: here it is made safe to show, and compared with names."""

import difflib
import unicodedata
from collections.abc import Collection, Iterable
from typing import Any

# Embeddings, overrides and isolates can reorder what stands around them; marks of a single direction are harmless.
_BIDI = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}


def visible(text: Any, keep: Collection[str] = frozenset()) -> str:
    """``text`` with control and direction-changing characters made visible (ESC -> ␛), but for those in ``keep``."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(ch if ch in keep else _symbol(ch) for ch in text)


def _symbol(ch: str) -> str:
    if ch in _BIDI:
        return f"⟨U+{ord(ch):04X}⟩"
    if ch < " ":
        return chr(0x2400 + ord(ch))
    if ch == "\x7f":
        return "␡"
    return "�" if unicodedata.category(ch) in ("Cc", "Cs") else ch


def as_typed(value: Any) -> str:
    """A setting's value as on the command line: null, true and false; any other as Python writes it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The end of a message about ``name``: "; did you mean X?"; "" where none of ``names`` is similar."""
    near = difflib.get_close_matches(name, list(names), 1)
    return f"; did you mean {near[0]}?" if near else ""
