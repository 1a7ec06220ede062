"""report.html: one self-contained page, without scripts, legible in light and in dark."""

from pathlib import Path

from mig_jax.report import sections
from mig_jax.report.elements import assemble
from mig_jax.report.reproduce import reproduce
from mig_jax.report.run_view import RunView, load_run

RUN = "mig_jax run"  # the kind of page


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
        lambda run: reproduce(run.manifest),
    )
    return assemble(f"{run.name}: selection report", [part(run) for part in parts], RUN)
