"""The pictures of a comparison: round ticks, labels that do not overlap, colours that everyone can tell apart."""

import re
from importlib.resources import files
from itertools import combinations

import numpy as np
import pytest

from mig_jax.report.lines import LEFT, Line, curves_chart, drawn_ranks, nice_ticks, spark, spread


@pytest.mark.parametrize("top", [1e-9, 0.3, 1.0, 4.0, 50.0, 1905.3, 7661.0, 3e9])
def test_ticks_are_round_and_reach_the_top(top: float):
    ticks = nice_ticks(top, 5)
    assert ticks[0] == 0 and ticks[-1] >= 0.999 * top and 3 <= len(ticks) <= 7
    assert f"{ticks[1]:.0e}"[0] in "125"


def test_labels_keep_their_distance():
    rng = np.random.default_rng(0)
    for _ in range(50):
        places = rng.uniform(0, 300, rng.integers(1, 18)).tolist()
        moved = spread(places, 16, 4, 300)
        assert np.diff(sorted(moved)).min(initial=16) >= 16 - 1e-9
        assert np.argsort(moved).tolist() == np.argsort(places).tolist()
        assert min(moved) >= 4 - 1e-9 and max(moved) <= 300 + 1e-9
    assert spread([50.0, 100.0], 16, 0, 300) == [50.0, 100.0]  # nothing is moved that need not be


def test_a_curve_is_drawn_where_it_is():
    """From 0 over every rank to its end, on the scale of the ticks."""
    text = curves_chart([Line("<mig>", np.array([4.0, 6.0, 8.0, 10.0]), 0)], {"2": 5.0, "9": 7.0}, 4)
    (curve,) = re.findall(r'd="M([^"]+)" class="curve s0"', text)
    points = np.array([[float(v) for v in point.split()] for point in curve.split("L")])
    assert points[0, 0] == LEFT and np.allclose(np.diff(points[:, 0]), np.diff(points[:, 0])[0], atol=0.11)
    rise = points[0, 1] - points[:, 1]
    assert np.allclose(rise / rise[-1], [0, 0.4, 0.6, 0.8, 1.0], atol=2e-3)
    assert ">&lt;mig&gt;<" in text and "random picks" in text  # named at its end
    (random,) = re.findall(r'd="M([^"]+)" class="random"', text)
    assert len(random.split("L")) == 2  # from nothing to 5 at 2; 9 lies outside


def test_a_curve_that_is_not_known_is_not_drawn():
    text = curves_chart([Line("a", np.array([1.0, np.nan]), 0), Line("b", np.zeros(0), 1)], {}, 3)
    assert "nan" not in text


def test_ranks_of_a_long_curve():
    ranks = drawn_ranks(100_000)
    assert ranks[0] == 1 and ranks[-1] == 100_000 and len(ranks) <= 300
    assert drawn_ranks(5).tolist() == [1, 2, 3, 4, 5] and len(drawn_ranks(0)) == 0


def test_a_small_histogram_ends_at_its_edge():
    text = spark([0, 1, 2], [5, 5], [0, 9], 0.5, False, (0, 2), 12)
    (line,) = re.findall(r'd="M([^"]+)" class="curve s3 dashed"', text)
    heights = [float(point.split()[1]) for point in line.split("L")]
    assert heights == [34, 34, 34, 2, 2, 34]  # all of it, cut at the top


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
def test_lines_can_be_told_apart_by_everyone(mode: str, sight: str):
    style = files("mig_jax.report").joinpath("page.css").read_text(encoding="utf-8")
    part = style.split("@media (prefers-color-scheme: dark)")[mode == "dark"]
    colours = dict(re.findall(r"--(s\d|paper): #(\w{6})", part))
    paper = colours.pop("paper")
    assert len(colours) == 9
    srgb = np.array([[int(c[at : at + 2], 16) / 255 for at in (0, 2, 4)] for c in [paper, *colours.values()]])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    found = lab(linear @ SEEN[sight].T)
    # 2.3 is just noticeable side by side; thin lines apart from each other need a multiple of it.
    assert min(np.linalg.norm(a - b) for a, b in combinations(found, 2)) > 20
