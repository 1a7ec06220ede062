"""A sweep is one comparison: its order, its reference, its published numbers, its charts."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_run import finished_run, run_facts
from test_selection_page import Parsed

from mig_jax.core.errors import UserError
from mig_jax.report import compare, comparison_page
from mig_jax.report.sweep import SweepSettings

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A finished run that picked ``points``."""

    def write(name: str, points: list[int], objective: float = 10.0, **config) -> Path:
        order = replace(run_facts().selection, points=np.array(points), gains=np.ones(len(points)))
        curve = np.linspace(0, objective, len(points) + 1)[1:]
        graph = {"threshold": config.get("graph", {}).get("threshold"), "mean_degree": 3.5, "isolated_share": 0.25}
        certificate = {len(points): {"bound": 20.0, "ratio": objective / 20.0}}
        finished_run(
            tmp_path / name,
            name=name,
            config={"sampler": {"name": "mig"}, **config},
            budgets=(len(points),),
            selection=order,
            objective=curve,
            graph=graph,
            labels_earned=(),
            certificate=certificate,
        )
        return tmp_path / name

    return write


@pytest.fixture
def thresholds(make: Make) -> list[Path]:
    picks = {0.9: [1, 2, 3, 4], 0.8: [1, 2, 3, 5], 0.86: [6, 7, 8, 9]}
    return [
        make(f"T={value}", points, objective=10 * value, graph={"threshold": value}) for value, points in picks.items()
    ]


def test_runs_are_ordered_and_compared_with_the_reference(thresholds: list[Path]):
    paper = {"name": "paper's Avg", 0.8: 53.67, "0.90": 55.32}
    both = compare(thresholds, sweep=SweepSettings("graph.threshold", 0.90, paper))
    assert both.sweep is not None
    assert (both.sweep.key, both.sweep.values, both.sweep.reference) == ("graph.threshold", (0.8, 0.86, 0.9), 2)
    assert both.names == ("mig threshold=0.8", "mig threshold=0.86", "mig threshold=0.9")
    assert [row["overlap"] for row in both.rows] == [3 / 5, 0.0, 1.0]  # 3 of {1, 2, 3, 4, 5} are in both
    assert [row["paper"] for row in both.rows] == [53.67, None, 55.32]
    first = both.rows[0]
    assert (first["mean_degree"], first["isolated"], first["certificate"]) == (3.5, 0.25, 8.0 / 20.0)
    lines = list(csv.DictReader(both.csv().splitlines()))
    assert [line["graph.threshold"] for line in lines] == ["0.8", "0.86", "0.9"]
    assert [float(line["objective"]) for line in lines] == [8.0, 8.6, 9.0] and lines[1]["paper"] == ""
    head, *rows = both.text().splitlines()
    assert "paper's Avg" in head and "53.67" in rows[0] and "–" in rows[1]
    assert "the Jaccard index with the rows of graph.threshold=0.9" in both.text()


def test_the_page_draws_each_column_over_the_setting(thresholds: list[Path]):
    plot = ("mean_degree", "overlap", "paper")
    text = comparison_page(compare(thresholds, sweep=SweepSettings("graph.threshold", 0.9, plot=plot)))
    panels = text.partition("<h2>Over graph.threshold</h2>")[2].partition("</section>")[0]
    assert panels.count("<svg") == 2  # there are no published numbers
    assert panels.count('class="main"') == 6 and panels.count('class="reference"') == 2
    assert "the reference, <bdi>graph.threshold=0.9</bdi>" in panels
    assert text == comparison_page(compare(thresholds, sweep=SweepSettings("graph.threshold", 0.9, plot=plot)))
    assert "Over graph.threshold" not in comparison_page(compare(thresholds))


def test_the_first_setting_that_differs_is_the_key(make: Make):
    runs = [
        make("a", [1], sampler={"name": "mig", "gain": "exact"}, phi={"kind": "power"}),
        make("b", [1, 2], sampler={"name": "random", "gain": "exact"}, phi={"kind": "power"}),
        make("c", [2, 3], sampler={"name": "random", "gain": "exact"}, phi={"kind": "exp"}),
    ]
    both = compare(runs, sweep=SweepSettings())
    assert both.sweep is not None and both.sweep.key == "sampler.name"
    assert both.sweep.values == ("mig", "random", "random") and both.sweep.reference == 0


def test_one_run_alone_is_no_sweep(make: Make):
    both = compare([make("only", [1, 2])], sweep=SweepSettings())
    assert both.sweep is None and both.names == ("mig",)


@pytest.mark.parametrize("value", ["auto", None, True, "<b>$x_1$"])
def test_settings_that_are_no_numbers_are_drawn_too(make: Make, value):
    runs = [make("a", [1, 2], graph={"threshold": value}), make("b", [1, 3], graph={"threshold": 0.5})]
    text = comparison_page(compare(runs, sweep=SweepSettings("graph.threshold")))
    Parsed(text)
    panels = text.partition("<h2>Over graph.threshold</h2>")[2].partition("</section>")[0]
    assert panels.count("<svg") == 4 and panels.count('class="main"') == panels.count('class="reference"') == 4


def test_mistakes(thresholds: list[Path]):
    with pytest.raises(UserError) as error:
        SweepSettings(plot=["degre"])
    assert (error.value.key, error.value.value) == ("hydra.callbacks.sweep.plot", "degre")
    assert error.value.allowed is not None and "mean_degree" in error.value.allowed
    (thresholds[1] / "trace.parquet").unlink()
    with pytest.raises(UserError, match="is not a whole run"):
        compare(thresholds, sweep=SweepSettings())
