"""What every page is put together from: the page itself, a section's heading, a table."""

from collections.abc import Iterable, Sequence
from importlib.resources import files
from string import Template

from mig_jax.report.text import escaped


def assemble(title: str, body: Sequence[str], kind: str) -> str:
    """A whole page around pieces of HTML; ``title`` is plain text, ``kind`` names the page for programs."""
    here = files("mig_jax.report")
    template = Template(here.joinpath("page.html").read_text(encoding="utf-8"))
    style = here.joinpath("page.css").read_text(encoding="utf-8")
    footer = (
        "<footer>Made by mig_jax from what runs have written. Nothing on this page is loaded from elsewhere.</footer>"
    )
    return template.substitute(
        title=escaped(title), kind=escaped(kind), style=style.strip(), body="\n".join([*filter(None, body), footer])
    )


def section(title: str, intro: str = "") -> str:
    """A section's heading. ``title`` and ``intro`` are HTML of this package."""
    return f"<h2>{title}</h2>" + (f'<p class="note">{intro.removesuffix(".")}.</p>' if intro else "")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numeric: Sequence[int] = (), tight: bool = False) -> str:
    """A table of HTML cells; the columns in ``numeric`` are set right; ``tight``: only as wide as its content."""

    def line(cells: Sequence[str], tag: str) -> str:
        marked = (f"<{tag}{' class=n' if at in numeric else ''}>{cell}</{tag}>" for at, cell in enumerate(cells))
        return f"<tr>{''.join(marked)}</tr>"

    header = line(head, "th") if any(head) else ""
    kind = ' class="tight"' if tight else ""
    return f'<div class="scroll"><table{kind}>{header}{"".join(line(row, "td") for row in rows)}</table></div>'
