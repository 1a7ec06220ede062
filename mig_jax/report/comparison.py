"""Several runs on one page: what each reached, on one picture."""

from collections.abc import Sequence
from pathlib import Path

from mig_jax.errors import UserError
from mig_jax.report.charts import SERIES, objective_chart
from mig_jax.report.html import assemble
from mig_jax.report.run_view import RunView, load_run
from mig_jax.report.sections import section, table
from mig_jax.report.text import count, escaped, floor_percent, isolated, number, seconds


def compare(folders: Sequence[str | Path]) -> str:
    """The comparison of finished runs as one HTML page, in the order given.

    Raises:
      UserError: no folder, or one of them holds no whole run.
    """
    if not folders:
        raise UserError("report: name at least one run's folder")
    runs = [load_run(folder) for folder in folders]
    marks = [f'<span class="key s{at % len(SERIES)}"></span>' for at in range(len(runs))]
    rows = [
        (
            mark + isolated(run.name),
            escaped(_system(run)),
            count(run.manifest["n"]),
            number(run.reached, 4),
            number(run.random, 4),
            "–" if run.certificate is None else f"{floor_percent(run.certificate)} %",
            f"{count(run.manifest['labels']['covered'])} of {count(run.manifest['labels']['total'])}",
            seconds(run.manifest["timings"].get("select")),
        )
        for mark, run in zip(marks, runs, strict=True)
    ]
    head = ("Run", "System", "Rows", "E(D)", "Random", "At least, of the optimum", "Labels", "Select")
    parts = [
        f"<header><h1>{len(runs)} selections compared</h1></header>",
        table(head, rows, numeric=range(2, 8)),
        _warning(runs),
        section("Information over rows"),
    ]
    random = max((run.manifest["random_objective"] for run in runs), key=len)
    if len(marks) == 1:
        marks = ['<span class="key main"></span>']
    legend = "".join(f"{mark}{isolated(run.name)}" for mark, run in zip(marks, runs, strict=True))
    if random and not _differing(runs):
        legend += '<span class="key other"></span>random picks'
    else:
        random = {}
    picture = objective_chart([run.objective for run in runs], random)
    parts.append(f"<figure>{picture}<figcaption>{legend}</figcaption></figure>")
    return assemble(f"{len(runs)} selections compared", parts)


def _system(run: RunView) -> str:
    sampler = run.manifest["config"].get("sampler", "")
    return str(sampler.get("name", "") if isinstance(sampler, dict) else sampler)


def _differing(runs: Sequence[RunView]) -> list[str]:
    """What must be equal for E(D) of two runs to be one quantity, and is not."""
    aspects = {
        "pools": lambda run: [source["sha256"] for source in run.manifest["pool"]["sources"]],
        "label graphs": lambda run: run.manifest["graph"],
        "phi": lambda run: run.manifest["config"].get("phi"),
    }
    return [name for name, aspect in aspects.items() if any(aspect(run) != aspect(runs[0]) for run in runs)]


def _warning(runs: Sequence[RunView]) -> str:
    different = _differing(runs)
    if not different:
        return ""
    return f'<p class="warning">These runs have different {" and ".join(different)}: their E(D) cannot be compared.</p>'
