"""Pictures of a comparison as inline SVG, written by hand: matplotlib takes longer to import than the rest to run.

Colours are the page's style sheet's (``--s0`` ...), so that one picture serves light and dark. What is text on it comes
from users and is escaped.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from mig_jax.report.text import escaped

SERIES = 9  # colours of the style sheet; then they come again, dashed
CURVE_POINTS = 150
WIDTH, HEIGHT = 856, 340
LEFT, TOP, BOTTOM = 52, 30, 40
LETTER, LINE = 7.5, 16  # of the labels, in pixels
LONGEST = 26


@dataclass(frozen=True)
class Line:
    """A curve with its name at its end.

    Args:
      name: as the page calls the run.
      curve: E(D) after each pick; float64 ``[n]``.
      series: which colour.
    """

    name: str
    curve: Float64[np.ndarray, " n"]
    series: int


def drawn_ranks(n: int) -> np.ndarray:
    """Ranks from 1 to n that draw a curve as well as all of them: some evenly over rank, some over log rank."""
    if n == 0:
        return np.zeros(0, int)
    spread = [space(1, n, CURVE_POINTS) for space in (np.linspace, np.geomspace)]
    return np.unique(np.round(np.concatenate(spread)).astype(int))


def curves_chart(lines: Sequence[Line], random: Mapping[str, float], last: int) -> str:
    """E(D) over the number of picks, up to ``last`` of them; every line named where it ends, random picks dotted."""
    cut = [Line(line.name, line.curve[:last], line.series) for line in lines]
    ends = [
        (float(line.curve[-1]), len(line.curve), line.name, line.series)
        for line in cut
        if np.isfinite(line.curve[-1:]).any()
    ]
    known = sorted((int(n), value) for n, value in random.items() if value is not None and 0 < int(n) <= last)
    if known:
        ends.append((known[-1][1], known[-1][0], "random picks", -1))
    most = max((float(np.nanmax(line.curve, initial=0.0)) for line in cut), default=0.0) or 1.0
    ticks = nice_ticks(most, 5)
    height = max(HEIGHT, TOP + BOTTOM + LINE * len(ends))
    label = max((min(len(name), LONGEST) for _, _, name, _ in ends), default=0) * LETTER + 26
    right, floor = WIDTH - label, height - BOTTOM

    def x(rank: float) -> float:
        return LEFT + (right - LEFT) * rank / max(last, 1)

    def y(value: float) -> float:
        return floor - (floor - TOP) * value / max(ticks[-1], most)

    parts = [_axes(ticks, nice_ticks(last, 6), x, y, right, floor)]
    if known:
        points = _path([(x(n), y(value)) for n, value in [(0, 0.0), *known]])
        parts.append(f'<path d="{points}" class="random"/>')
    for line in cut:
        ranks = drawn_ranks(len(line.curve))
        points = _path([(x(n), y(value)) for n, value in zip([0, *ranks], [0.0, *line.curve[ranks - 1]], strict=True)])
        parts.append(f'<path d="{points}" class="curve {series_class(line.series)}"/>')
    places = spread([y(value) for value, *_ in ends], LINE, TOP + 4, floor)
    for (value, n, name, series), place in zip(ends, places, strict=True):
        kind = "random" if series < 0 else series_class(series)
        lead = _path([(x(n), y(value)), (max(x(n), right) + 4, y(value)), (right + 14, place), (right + 20, place)])
        far = " far" if x(n) < right - 1 else ""
        parts.append(f'<path d="{lead}" class="lead{far} {kind}"/>')
        parts.append(f'<circle cx="{x(n):.1f}" cy="{y(value):.1f}" r="3" class="{kind}"/>')
        parts.append(f'<text x="{right + 24:.1f}" y="{place + 4:.1f}" class="name">{escaped(shortened(name))}</text>')
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" class="lines">{"".join(parts)}</svg>'


def _axes(values: Sequence[float], ranks: Sequence[float], x, y, right: float, floor: float) -> str:
    digits = max(0, -math.floor(math.log10(values[1]))) if len(values) > 1 else 0
    parts = [
        f'<path d="M{LEFT} {y(value):.1f}H{right:.1f}" class="grid"/>'
        f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:,.{digits}f}</text>'
        for value in values
    ]
    parts += [
        f'<text x="{x(rank):.1f}" y="{floor + 18:.1f}" text-anchor="middle">{rank:,.0f}</text>'
        for rank in ranks
        if rank == round(rank) and x(rank) <= right + 1
    ]
    middle = (LEFT + right) / 2
    parts.append(f'<text x="{middle:.1f}" y="{floor + 35:.1f}" text-anchor="middle">rows picked</text>')
    parts.append(f'<text x="{LEFT - 8}" y="{TOP - 16}" text-anchor="end">E(D)</text>')
    return "".join(parts)


def spark(edges: Sequence[float], pool: Sequence[int], selected: Sequence[int], top: float, logarithmic: bool,
          span: tuple[float, float], series: int) -> str:  # fmt: skip
    """A small histogram: the selection's share of rows in each bin over the pool's.

    Args:
      edges: ``[b+1]`` for counts ``[b]``.
      top: the share at the upper edge; what is larger ends there.
      span: the values at the left and right edge; they are the same for every run, so that runs can be compared.
      series: the selection's colour; -1: there is only the pool.
    """
    wide, high = 190, 34

    def x(value: float) -> float:
        low, up = (math.log(max(v, 0.5)) for v in span) if logarithmic else span
        at = math.log(max(value, 0.5)) if logarithmic else value
        return wide * (at - low) / ((up - low) or 1)

    def steps(counts: Sequence[int]) -> list[tuple[float, float]]:
        total = max(sum(counts), 1)
        points = [(x(edges[0]), high)]
        for left, right, many in zip(edges, edges[1:], counts, strict=False):
            level = high - (high - 2) * min(many / total / top, 1.0)
            points += [(x(left), level), (x(right), level)]
        return [*points, (x(edges[-1]), high)]

    parts = [f'<path d="{_path(steps(pool))}Z" class="pool"/>']
    if series >= 0:
        parts.append(f'<path d="{_path(steps(selected))}" class="curve {series_class(series)}"/>')
    parts.append(f'<path d="M0 {high}H{wide}" class="grid"/>')
    return f'<svg viewBox="0 -1 {wide} {high + 2}" role="img" class="lines spark">{"".join(parts)}</svg>'


def series_class(series: int) -> str:
    """The style sheet's classes of a run's line."""
    return f"s{series % SERIES}" + (" dashed" if series >= SERIES else "")


def shortened(text: str) -> str:
    """As much of a name as fits beside a picture; its end is what tells runs of a sweep apart."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 13]}…{text[-12:]}"


def nice_ticks(top: float, about: int) -> list[float]:
    """Round numbers from 0 to ``top`` or just above, about so many: 1, 2 or 5 times a power of ten apart."""
    rough = max(top, 1e-300) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    return [step * at for at in range(math.ceil(top / step * 0.999) + 1)]


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places moved as little apart as lets none be nearer than ``gap``, from ``low`` to ``high`` if they fit."""
    order = sorted(range(len(places)), key=lambda at: places[at])
    out = [0.0] * len(places)
    before = low - gap
    for at in order:
        before = out[at] = max(places[at], before + gap)
    after = high + gap
    for at in reversed(order):
        after = out[at] = min(out[at], after - gap)
    return out


def _path(points: Sequence[tuple[float, float]]) -> str:
    there = [(a, b) for a, b in points if math.isfinite(a) and math.isfinite(b)]
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in there) if there else ""
