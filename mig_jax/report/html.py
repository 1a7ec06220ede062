"""report.html: one self-contained page, without scripts, legible in light and in dark."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from mig_jax.report import sections
from mig_jax.report.run_view import RunView, load_run
from mig_jax.report.text import escaped


def page(folder: str | Path) -> str:
    """The report of the run in ``folder`` as HTML; ``write_run`` takes it as its ``page``.

    Raises:
      UserError: the folder holds no whole run.
    """
    return render(load_run(folder))


def render(run: RunView) -> str:
    """The page of a run that has been read."""
    parts = (
        sections.headline,
        sections.curve,
        sections.sources,
        sections.labels,
        sections.distributions,
        sections.picks,
        sections.runners_up,
        sections.dropped,
        sections.reproduce,
    )
    return assemble(f"{run.name}: selection report", [part(run) for part in parts])


def assemble(title: str, body: Sequence[str]) -> str:
    """A whole page around pieces of HTML; ``title`` is plain text."""
    here = files("mig_jax.report")
    template = Template(here.joinpath("page.html").read_text(encoding="utf-8"))
    style = here.joinpath("page.css").read_text(encoding="utf-8")
    footer = "<footer>Made by mig_jax from the run's manifest. Nothing on this page is loaded from elsewhere.</footer>"
    return template.substitute(title=escaped(title), style=style.strip(), body="\n".join([*filter(None, body), footer]))
