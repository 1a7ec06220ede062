"""On a screen of 390 px the pages do not scroll sideways, words stay whole, and wide tables scroll inside their boxes.

The rules are read from the style sheet and the templates; a browser is not needed.
"""

import re
from importlib.resources import files

import pytest

TEMPLATES = files("mig_jax.report") / "templates"
NAMES = sorted(path.name for path in TEMPLATES.iterdir() if path.name.endswith(".html.j2"))
CSS = (TEMPLATES / "page.css").read_text(encoding="utf-8")
IN_SCROLLER = re.compile(r'<div class="scroll[^"]*">\s*<table\b')


def declared(selector: str) -> dict[str, str]:
    """The declarations of a selector, alone or in a list, in every rule of the sheet; the last one counts."""
    rules = re.findall(r"([^{}]+)\{([^{}]*)\}", CSS)
    bodies = [body for selectors, body in rules if selector in [part.strip() for part in selectors.split(",")]]
    pairs = [pair.split(":", 1) for body in bodies for pair in body.split(";") if ":" in pair]
    return {name.strip(): value.strip() for name, value in pairs}


@pytest.mark.parametrize("cell", ["td", "th[scope=row]"])
def test_cells_wrap_at_words(cell: str):
    """``anywhere`` and ``word-break`` would let a column shrink to single letters."""
    assert declared(cell)["overflow-wrap"] == "break-word"
    assert "word-break" not in CSS


def test_numbers_do_not_wrap():
    assert declared(".n")["white-space"] == "nowrap" and declared(".n")["overflow-wrap"] == "normal"


def test_a_wide_table_scrolls_and_the_page_does_not():
    assert declared(".scroll")["overflow-x"] == "auto"
    assert declared("main")["overflow-x"] == "clip"
    assert 'name="viewport" content="width=device-width' in (TEMPLATES / "base.html.j2").read_text(encoding="utf-8")


def test_every_table_is_in_a_scrolling_box():
    texts = {name: (TEMPLATES / name).read_text(encoding="utf-8") for name in NAMES}
    tables = {name: len(re.findall(r"<table\b", text)) for name, text in texts.items()}
    assert {name: len(IN_SCROLLER.findall(text)) for name, text in texts.items()} == tables
    assert sum(tables.values()) > 10
