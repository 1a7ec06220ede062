"""Charts: round ticks, labels that do not overlap, colours that remain distinct for colour-blind readers."""

import re
from importlib.resources import files
from itertools import combinations

import numpy as np
import pytest

from mig_jax.report.charts import LEFT, Chart, Line, drawn_ranks, histogram, line_chart, objective_line, spark
from mig_jax.report.scales import Scale, nice_ticks, spread, tick_text


@pytest.mark.parametrize("top", [1e-9, 0.3, 1.0, 4.0, 50.0, 1905.3, 7661.0, 3e9])
def test_ticks_are_round_and_reach_the_top(top: float):
    ticks = nice_ticks(top, 5)
    assert ticks[0] == 0 and ticks[-1] >= 0.999 * top and 3 <= len(ticks) <= 7
    assert f"{ticks[1]:.0e}"[0] in "125"


def test_tick_texts():
    values = {0.0: "0", 0.5: "0.5", 1500.0: "1,500", 25000.0: "25k", 2e6: "2M", 3e13: "3e+13"}
    assert {value: tick_text(value) for value in values} == values


def test_labels_keep_their_distance():
    rng = np.random.default_rng(0)
    for _ in range(50):
        places = rng.uniform(0, 300, rng.integers(1, 18)).tolist()
        moved = spread(places, 16, 4, 300)
        assert np.diff(sorted(moved)).min(initial=16) >= 16 - 1e-9
        assert np.argsort(moved).tolist() == np.argsort(places).tolist()
        assert min(moved) >= 4 - 1e-9 and max(moved) <= 300 + 1e-9
    assert spread([50.0, 100.0], 16, 0, 300) == [50.0, 100.0]  # nothing is moved without need


def points_of(chart: Chart, style: str) -> np.ndarray:
    """The points of the one path of a style; float ``[k, 2]``."""
    (path,) = [shape for shape in chart.shapes if shape.attributes.get("class") == style]
    return np.array(
        [[float(v) for v in point.split()] for point in str(path.attributes["d"])[1:].rstrip("Z").split("L")]
    )


def texts_of(chart: Chart) -> list[str]:
    return [shape.text for shape in chart.shapes if shape.text]


def test_a_curve_is_drawn_on_the_scale_of_its_ticks():
    """From 0 over every rank to its end."""
    lines = [
        objective_line(np.array([4.0, 6.0, 8.0, 10.0]), "s0", "<mig>"),
        Line(np.array([0, 2]), np.array([0, 5.0]), "s1", "r"),
    ]
    chart = line_chart(lines, "E(D)", "rows picked", "E(D)", x_range=(0, 4), names=True)
    points = points_of(chart, "curve s0")
    assert points[0, 0] == LEFT and np.allclose(np.diff(points[:, 0]), np.diff(points[:, 0])[0], atol=0.11)
    rise = points[0, 1] - points[:, 1]
    assert np.allclose(rise / rise[-1], [0, 0.4, 0.6, 0.8, 1.0], atol=2e-3)
    tick = next(shape for shape in chart.shapes if shape.text == "10")
    assert float(tick.attributes["y"]) - 4 == pytest.approx(points[-1, 1], abs=0.2)
    assert {"<mig>", "r", "rows picked", "E(D)"} <= set(texts_of(chart))
    assert len(points_of(chart, "curve s1")) == 2


def test_values_that_are_not_known_are_not_drawn():
    x = np.arange(3.0)
    chart = line_chart(
        [Line(x, np.array([1.0, np.nan, np.nan]), "s0"), Line(x[:0], x[:0], "s1")], "", "", "", names=True
    )
    assert "nan" not in "".join(str(shape) for shape in chart.shapes)


def test_values_on_a_logarithmic_axis():
    scale = Scale(1, 1000, 0, 300, logarithmic=True)
    assert [scale(value) for value in (1, 10, 1000)] == pytest.approx([0, 100, 300])
    assert Scale(2, 2, 0, 10)(2) == 0  # one value alone


def test_bars_have_the_height_of_their_counts():
    chart = histogram([0, 1, 2, 3], "rows", bars=[10, 5, 0], mark=1.5)
    bars = [shape for shape in chart.shapes if shape.tag == "rect"]
    assert [bar.title for bar in bars] == ["0 to 1: 10 rows", "1 to 2: 5 rows"]
    assert float(bars[0].attributes["height"]) == pytest.approx(2 * float(bars[1].attributes["height"]), abs=0.2)
    assert any(shape.attributes.get("class") == "mark" for shape in chart.shapes)


def test_ranks_of_a_long_curve():
    ranks = drawn_ranks(100_000)
    assert ranks[0] == 1 and ranks[-1] == 100_000 and len(ranks) <= 300
    assert drawn_ranks(5).tolist() == [1, 2, 3, 4, 5] and len(drawn_ranks(0)) == 0


def test_a_small_histogram_ends_at_its_edge():
    chart = spark([0, 1, 2], [5, 5], [0, 9], "", top=0.5, span=(0, 2), logarithmic=False, style="s3 dashed")
    heights = points_of(chart, "curve s3 dashed")[:, 1]
    assert heights.tolist() == [35, 35, 35, 3, 3, 35]  # all of it, cut at the top


# Machado, Oliveira and Fernandes (2009), table 1, severity 1.0: what protanopes and deuteranopes see, in linear RGB.
SEEN = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}


def lab(linear: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of linear sRGB ``[k, 3]``."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = linear.clip(0, 1) @ to_xyz.T / [0.9505, 1.0, 1.089]
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


@pytest.mark.parametrize("sight", SEEN)
@pytest.mark.parametrize("mode", ["light", "dark"])
def test_colours_of_lines_are_distinct(mode: str, sight: str):
    style = files("mig_jax.report").joinpath("templates/page.css").read_text(encoding="utf-8")
    part = style.split("@media (prefers-color-scheme: dark)")[mode == "dark"]
    colours = dict(re.findall(r"--(s\d|paper): #(\w{6})", part))
    paper = colours.pop("paper")
    assert len(colours) == 9
    srgb = np.array([[int(c[at : at + 2], 16) / 255 for at in (0, 2, 4)] for c in [paper, *colours.values()]])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    found = lab(linear @ SEEN[sight].T)
    # 2.3 is just noticeable side by side; thin lines apart from each other need a multiple of it.
    assert min(np.linalg.norm(a - b) for a, b in combinations(found, 2)) > 20
