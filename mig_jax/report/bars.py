"""Histograms and bars as inline SVG, written by hand, as ``lines.py`` writes its curves; each bar says its count.

No text of a pool enters a picture.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from mig_jax.report.lines import nice_ticks
from mig_jax.report.text import number, row_count

WIDTH, HEIGHT = 408, 176
LEFT, RIGHT, TOP, FLOOR = 44, 402, 12, 148
GAP = 1.0  # between two bars


def histogram_bars(
    edges: Sequence[float], counts: Sequence[int], *, logarithmic: bool = False, mark: float | None = None
) -> str:
    """Rows in each bin.

    Args:
      edges: ``[b+1]``, ascending, for counts ``[b]``.
      logarithmic: the axis is; a bin that begins at 0 is drawn at its left end.
      mark: a value at which a line stands.
    """
    if logarithmic and edges[0] <= 0:
        edges = [min(0.5, edges[1] / 2), *edges[1:]]
    scale: Callable[[float], float] = math.log if logarithmic else float
    low, span = scale(edges[0]), scale(edges[-1]) - scale(edges[0])

    def x(value: float) -> float:
        return LEFT + (RIGHT - LEFT) * (scale(value) - low) / span

    ticks = log_ticks(edges[0], edges[-1]) if logarithmic else even_ticks(edges[0], edges[-1])
    bars = [
        (x(left), x(right), many, f"{number(left)} to {number(right)}")
        for (left, right), many in zip(pairwise(edges), counts, strict=True)
    ]
    parts = [_bars(bars), "".join(_tick(x(value), _said(value)) for value in ticks)]
    if mark is not None and edges[0] <= mark <= edges[-1]:
        parts.append(f'<path d="M{x(mark):.1f} {TOP - 6}V{FLOOR}" class="mark"/>')
    return _svg(parts)


def count_bars(counts: Sequence[int]) -> str:
    """Rows that have 0, 1, 2, ... of something: a bar for each number."""
    wide = (RIGHT - LEFT) / len(counts)
    every = 1 if len(counts) <= 13 else 2 if len(counts) <= 26 else 5
    bars = [(LEFT + wide * at, LEFT + wide * (at + 1), many, str(at)) for at, many in enumerate(counts)]
    ticks = (_tick(LEFT + wide * (at + 0.5), str(at)) for at in range(0, len(counts), every))
    return _svg([_bars(bars, min(GAP, wide / 2) + wide / 8), "".join(ticks)])


def _bars(bars: Sequence[tuple[float, float, int, str]], gap: float = GAP) -> str:
    """Bars (left, right, rows, what they are) and the grid behind them."""
    most = max((many for _, _, many, _ in bars), default=0) or 1
    ticks = [value for value in nice_ticks(most, 3) if value == round(value)]
    top = max(ticks[-1], most)

    def y(value: float) -> float:
        return FLOOR - (FLOOR - TOP) * value / top

    parts = [
        f'<path d="M{LEFT} {y(value):.1f}H{RIGHT}" class="grid"/>'
        f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{short(value)}</text>'
        for value in ticks
    ]
    for left, right, many, what in bars:
        if many:  # one row among a million can still be seen
            high = max(FLOOR - y(many), 1.0)
            width = max(right - left - gap, 0.8)
            parts.append(
                f'<rect x="{left + gap / 2:.1f}" y="{FLOOR - high:.1f}" width="{width:.1f}" height="{high:.1f}">'
                f"<title>{what}: {row_count(many)}</title></rect>"
            )
    return "".join(parts)


def even_ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers from ``low`` to ``high``, evenly apart."""
    step = nice_ticks(high - low, about)[1]
    digits = max(0, 1 - math.floor(math.log10(step)))
    first = math.ceil(low / step - 1e-9)
    return [round(at * step, digits) for at in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten from ``low`` to ``high``; where these are few, their doubles and fivefolds too."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if high > 3000 * low else (1, 2, 5) if high > 12 * low else (1, 1.5, 2, 3, 4, 5, 7)
    return [10.0**power * factor for power in powers for factor in factors if low <= 10.0**power * factor <= high]


def short(value: float) -> str:
    """``25000`` -> ``25k``."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _said(value: float) -> str:
    return short(value) if abs(value) < 1e12 else f"{value:.3g}"


def _tick(at: float, text: str) -> str:
    return f'<text x="{at:.1f}" y="{FLOOR + 18}" text-anchor="middle">{text}</text>'


def _svg(parts: Sequence[str]) -> str:
    inside = "".join(parts) + f'<path d="M{LEFT} {FLOOR}H{RIGHT}" class="grid"/>'
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" class="lines bars">{inside}</svg>'


def shares(entries: Sequence[Mapping[str, Any]]) -> list[float]:
    """How long the bars of entries with ``rows`` are, in percent of the longest."""
    longest = max((entry["rows"] for entry in entries), default=0) or 1
    return [100 * entry["rows"] / longest for entry in entries]
