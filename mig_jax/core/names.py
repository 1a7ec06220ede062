"""Names that people mistype."""

import difflib


def closest(name: str, allowed: list[str]) -> str:
    """What to add to a message where one of ``allowed`` is close: "; did you mean X?"; else nothing."""
    near = difflib.get_close_matches(name, allowed, 1)
    return f"; did you mean {near[0]}?" if near else ""
