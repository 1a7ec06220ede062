"""The report's pictures as inline SVG: matplotlib draws, the page's style sheet colours.

Drawn with stand-in colours that are replaced by the page's CSS variables, so that one picture serves light and dark.
Ids are salted and no date is written: the same run draws the same bytes. No text of a pool enters a picture.
"""

import io
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from mig_jax.report.lines import drawn_ranks

INK, MUTED, GRID, MAIN, OTHER = "#010101", "#020202", "#030303", "#040404", "#050505"
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--line", MAIN: "--main", OTHER: "--other"}
_RC: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, in the page's font
    "font.size": 12,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "text.parse_math": False,
    "path.simplify": False,
}


def objective_chart(curve: Float64[np.ndarray, " n"], random: Mapping[str, float | None]) -> str:
    """E(D) over the number of picks, with random picks where they are known."""
    with _style("objective"):
        figure, axes = _axes(856, 300)
        ranks = drawn_ranks(len(curve))
        axes.plot([0, *ranks], [0.0, *curve[ranks - 1]], color=MAIN, lw=2)  # E(empty) = 0
        known = sorted((int(n), value) for n, value in random.items() if value is not None and int(n) > 0)
        if known:
            axes.plot(*zip((0, 0.0), *known, strict=True), color=OTHER, lw=1.8, ls=(0, (4, 2.5)))
            axes.plot(*zip(*known, strict=True), color=OTHER, lw=0, marker="o", ms=4, clip_on=False)
        axes.set_xlim(0, max([1, len(curve), *(n for n, _ in known)]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("rows picked")
        axes.set_ylim(bottom=0)
        axes.set_ylabel("E(D)")
        return _svg(figure)


def gain_chart(gains: Float64[np.ndarray, " n"]) -> str | None:
    """The gain of each pick over its rank, both logarithmic; None where no gain is above 0."""
    positive = np.flatnonzero(np.isfinite(gains) & (gains > 0))
    if len(positive) < 2:
        return None
    with _style("gain"):
        figure, axes = _axes(856, 200)
        at = positive[drawn_ranks(len(positive)) - 1]
        axes.plot(at + 1, gains[at], color=MAIN, lw=1.6)
        _log_ranks(axes, len(gains))
        low, high = float(gains[at].min()), float(gains[at].max())
        if high > 20 * low:
            axes.set_yscale("log")
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_ylim(0, 1.08 * high)
        axes.yaxis.set_major_formatter(FuncFormatter(_short))
        axes.set_ylabel("gain")
        return _svg(figure)


def histogram_chart(histogram: Mapping[str, Any], logarithmic: bool, name: str) -> str:
    """The share of rows in each bin, of the pool and of the selection.

    Args:
      histogram: "edges" ``[b+1]``, "pool" and "selected" ``[b]`` counts.
      logarithmic: the edges grow by a factor, so is the axis.
      name: salts the picture's ids.
    """
    edges = np.asarray(histogram["edges"], float)
    with _style(name):
        figure, axes = _axes(408, 200)
        if logarithmic and edges[0] <= 0:
            edges = np.concatenate([[min(0.5, edges[1] / 2)], edges[1:]])  # the bin of zeros, at the left of a log axis
        for key, colour, fill in (("pool", OTHER, True), ("selected", MAIN, False)):
            counts = np.asarray(histogram[key], float)
            shares = 100 * counts / max(counts.sum(), 1)
            if fill:
                axes.stairs(shares, edges, fill=True, color=colour, alpha=0.45, lw=0)
            else:
                axes.stairs(shares, edges, color=colour, lw=1.8)
        if logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
            if edges[-1] < 300 * edges[0]:
                axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        else:
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=name == "turns"))
        filled = np.flatnonzero(np.add(histogram["pool"], histogram["selected"]))
        axes.set_xlim(float(edges[filled[0]]), float(edges[filled[-1] + 1]))
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter(FuncFormatter(_short))
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
        return _svg(figure)


def _style(salt: str) -> AbstractContextManager[None]:
    """matplotlib's settings for one picture; those of the caller's process come back after it."""
    return mpl.rc_context({**_RC, "svg.hashsalt": salt})


def _axes(width: int, height: int) -> tuple[Figure, Axes]:
    """Empty axes; sizes in the page's pixels (an SVG's unit is the 72nd of an inch, the page scales it to its own)."""
    figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
    axes = figure.subplots()
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(_short))
    return figure, axes


def _log_ranks(axes: Axes, last: int) -> None:
    axes.set_xscale("log")
    axes.set_xlim(1, max(last, 2))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("rows picked")


def _short(value: float, _: object = None) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:.3g}"


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Ids that only name a group (axes_1, patch_2) would stand twice on one page; the salted ones are referred to.
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(r"font-family: [^;\"]*; ?", "", svg)
    svg = re.sub(r"\s*<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)  # would style the whole page
    # The page decides the width; the view box keeps the shape.
    return re.sub(r'<svg[^>]*?viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" role="img">', svg, count=1)
