"""Charts as inline SVG: curves, histograms, dots. They are laid out here and written by templates/chart.svg.j2.

Colours are classes of the style sheet (``s0`` ... ``s8``, ``random``, ``pool``), so that a chart fits light and dark.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from mig_jax.report.scales import Scale, nice_ticks, spread, tick_text
from mig_jax.report.text import number, row_count

WIDE, NARROW, HALF = (856, 300), (354, 230), (408, 170)  # of a screen, of a phone, of one of two side by side
LEFT, TOP, BOTTOM, TITLE = 52, 10, 26, 18  # room around the drawing, for ticks; and for a title above or below
SERIES = 9  # colours of the style sheet; then they come again, dashed
POINTS = 150  # of a curve: so many evenly over rank, and so many over log rank
LETTER, LINE, LONGEST = 7.5, 16, 26  # of the names at the ends: pixels, pixels, letters


@dataclass(frozen=True)
class Shape:
    """An SVG element.

    Args:
      tag, attributes: of the element.
      text: its content.
      title: what a browser shows under the pointer.
    """

    tag: str
    attributes: dict[str, str | float]
    text: str = ""
    title: str = ""


@dataclass(frozen=True)
class Chart:
    """A chart of ``width`` by ``height`` pixels; ``label`` describes it to those who cannot see it."""

    width: int
    height: int
    label: str
    shapes: list[Shape]
    kind: str = ""


@dataclass(frozen=True)
class Line:
    """A curve; points that are not finite are left out.

    Args:
      x, y: its points.
      style: classes of the style sheet.
      name: what stands at its end.
      dots: whether each point is marked.
    """

    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]
    style: str
    name: str = ""
    dots: bool = False


@dataclass
class _Drawing:
    """A chart while its shapes are added: the plot area, and the scales of its axes."""

    width: int
    height: int
    right: float
    x_title: str = ""
    y_title: str = ""
    shapes: list[Shape] = field(default_factory=list)
    x: Scale = field(init=False)
    y: Scale = field(init=False)

    @property
    def top(self) -> float:
        return TOP + TITLE * bool(self.y_title)

    @property
    def floor(self) -> float:
        return self.height - BOTTOM - TITLE * bool(self.x_title)

    def set_x(self, low: float, high: float, logarithmic: bool = False) -> None:
        self.x = Scale(low, high, LEFT, self.right, logarithmic)

    def set_y(self, low: float, high: float, logarithmic: bool = False) -> None:
        self.y = Scale(low, high, self.floor, self.top, logarithmic)

    def add(self, tag: str, text: str = "", title: str = "", **attributes: str | float) -> None:
        names = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        rounded = {name: round(value, 1) if isinstance(value, float) else value for name, value in names.items()}
        self.shapes.append(Shape(tag, rounded, text, title))

    def path(self, points: Sequence[tuple[float, float]], style: str, close: bool = False) -> None:
        d = _path(points)
        if d:
            self.add("path", d=d + "Z" * close, class_=style)

    def axes(self, x_ticks: Sequence[float], y_ticks: Sequence[float], unit: str) -> None:
        """Grid lines with their values, ticks below, a title at each axis."""
        for value in y_ticks:
            at = self.y(value)
            self.path([(LEFT, at), (self.right, at)], "grid")
            self.add("text", tick_text(value) + unit, x=LEFT - 8, y=at + 4, text_anchor="end")
        last = -math.inf
        for value in x_ticks:
            at, text = self.x(value), tick_text(value)
            if LEFT - 1 <= at <= self.right + 1 and at - LETTER * len(text) / 2 > last:  # none on another
                self.add("text", text, x=at, y=self.floor + 18, text_anchor="middle")
                last = at + LETTER * len(text) / 2 + 4
        if self.x_title:
            self.add("text", self.x_title, x=(LEFT + self.right) / 2, y=self.floor + 37, text_anchor="middle")
        if self.y_title:
            self.add("text", self.y_title, x=0, y=self.top - 16)

    def finished(self, label: str, kind: str = "") -> Chart:
        return Chart(self.width, self.height, label, self.shapes, kind)


def line_chart(
    lines: Sequence[Line],
    label: str,
    x_title: str,
    y_title: str,
    size: tuple[int, int] = WIDE,
    *,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    x_log: bool = False,
    y_log: bool = False,
    unit: str = "",
    names: bool = False,
) -> Chart:
    """Curves on common axes.

    Args:
      lines: the last is drawn on top.
      x_range, y_range: None: from 0 (logarithmic: from the smallest value) to the largest.
      unit: of the values on the vertical axis.
      names: whether every line's name stands at its end; the chart grows with their number.
    """
    width, height = size
    ends = [line for line in lines if names and line.name and np.isfinite(line.y[-1:]).any()]
    label_width = max((min(len(line.name), LONGEST) for line in ends), default=0) * LETTER + 26 if ends else 14
    height = max(height, TOP + BOTTOM + 2 * TITLE + LINE * len(ends))
    drawing = _Drawing(width, height, width - label_width, x_title, y_title)
    x_values = np.concatenate([*(line.x for line in lines), np.zeros(0)])
    y_values = np.concatenate([*(line.y[np.isfinite(line.y)] for line in lines), np.zeros(0)])
    low, high = x_range or _range(x_values, x_log)
    drawing.set_x(low, high, x_log)
    low, high = y_range or _range(y_values, y_log)
    about = max(3, round((drawing.floor - drawing.top) / 50))
    if y_range is None and not y_log:
        high = max(high, nice_ticks(high, about)[-1])
    drawing.set_y(low, high, y_log)
    drawing.axes(drawing.x.ticks(6), drawing.y.ticks(about), unit)
    for line in lines:
        points = [(drawing.x(a), drawing.y(b)) for a, b in zip(line.x.tolist(), line.y.tolist(), strict=True)]
        if len(points) > 1:
            drawing.path(points, f"curve {line.style}")
        for a, b in points if line.dots else ():
            if math.isfinite(a) and math.isfinite(b):
                drawing.add("circle", cx=a, cy=b, r=3, class_=line.style)
    _end_names(drawing, ends)
    return drawing.finished(label)


def _range(values: np.ndarray, logarithmic: bool) -> tuple[float, float]:
    if logarithmic:
        low, high = float(values.min()), float(values.max())
        return low, high if high > low else 2 * low
    return 0.0, float(values.max(initial=0.0)) or 1.0


def _end_names(drawing: _Drawing, lines: Sequence[Line]) -> None:
    """The names of lines beside their ends, moved apart where they would overlap."""
    right = drawing.right
    ends = [(drawing.x(float(line.x[-1])), drawing.y(float(line.y[-1]))) for line in lines]
    heights = spread([y for _, y in ends], LINE, drawing.top + 4, drawing.floor)
    for line, (x, y), at in zip(lines, ends, heights, strict=True):
        lead = "lead far" if x < right - 1 else "lead"
        drawing.path([(x, y), (max(x, right) + 4, y), (right + 14, at), (right + 20, at)], f"{lead} {line.style}")
        drawing.add("circle", cx=x, cy=y, r=3, class_=line.style)
        drawing.add("text", shortened(line.name), x=right + 24, y=at + 4, class_="name")


def drawn_ranks(n: int) -> np.ndarray:
    """Ranks from 1 to n that draw a curve as well as all of them."""
    if n == 0:
        return np.zeros(0, int)
    spaced = [space(1, n, POINTS) for space in (np.linspace, np.geomspace)]
    return np.unique(np.round(np.concatenate(spaced)).astype(int))


def objective_line(curve: Float[np.ndarray, " n"], style: str, name: str = "") -> Line:
    """E(D) after 0, 1, ... picks, at ``drawn_ranks``."""
    ranks = drawn_ranks(len(curve))
    return Line(np.concatenate([[0], ranks]), np.concatenate([[0.0], curve[ranks - 1]]), style, name)


def histogram(
    edges: Sequence[float],
    label: str,
    *,
    bars: Sequence[int] = (),
    names: Sequence[str] = (),
    area: Sequence[float] = (),
    step: Sequence[float] = (),
    logarithmic: bool = False,
    whole: bool = False,
    unit: str = "",
    mark: float | None = None,
) -> Chart:
    """Counts of bins as bars; or shares of rows as an area (of the pool) and an outline (of the selection).

    Args:
      edges: ``[b+1]``, ascending, for ``[b]`` values.
      names: what each bar stands for; none: from edge to edge.
      logarithmic: the horizontal axis is; a bin that begins at 0 is drawn at its left end.
      whole: the values are whole numbers.
      mark: a value at which a line stands.
    """
    width, height = HALF
    drawing = _Drawing(width, height, width - 8)
    if logarithmic and edges[0] <= 0:
        edges = [min(0.5, edges[1] / 2), *edges[1:]]
    most = max([0.0, *bars, *area, *step]) or 1.0
    y_ticks = [value for value in nice_ticks(most, 3) if value == round(value) or not bars]
    drawing.set_x(edges[0], edges[-1], logarithmic)
    drawing.set_y(0.0, max(y_ticks[-1], most))
    x_ticks = [value for value in drawing.x.ticks(6) if not whole or value == round(value)]
    drawing.axes(x_ticks, y_ticks, unit)
    x, y, floor = drawing.x, drawing.y, drawing.floor

    def outline(shares: Sequence[float]) -> list[tuple[float, float]]:
        inner = [(x(edge), y(share)) for pair, share in zip(pairwise(edges), shares, strict=True) for edge in pair]
        return [(x(edges[0]), floor), *inner, (x(edges[-1]), floor)]

    if len(area):
        drawing.path(outline(area), "pool", close=True)
    if len(step):
        drawing.path(outline(step), "curve main")
    gap = min(1.0, (drawing.right - LEFT) / len(edges) / 4)
    names = names or [f"{number(left)} to {number(right)}" for left, right in pairwise(edges)]
    for (left, right), many, name in zip(pairwise(edges), bars, names, strict=False):
        if many:  # one row among a million can still be seen
            high = max(floor - y(many), 1.0)
            wide = max(x(right) - x(left) - gap, 0.8)
            title = f"{name}: {row_count(many)}"
            drawing.add("rect", x=x(left) + gap / 2, y=floor - high, width=wide, height=high, title=title)
    if mark is not None and edges[0] <= mark <= edges[-1]:
        drawing.path([(x(mark), TOP - 4), (x(mark), floor)], "mark")
    drawing.path([(LEFT, floor), (drawing.right, floor)], "grid")
    return drawing.finished(label)


def count_bars(counts: Sequence[int], label: str) -> Chart:
    """Rows that have 0, 1, 2, ... of something: a bar for each number."""
    edges = [at - 0.5 for at in range(len(counts) + 1)]
    return histogram(edges, label, bars=counts, names=[str(at) for at in range(len(counts))], whole=True)


def spark(
    edges: Sequence[float],
    pool: Sequence[int],
    selected: Sequence[int],
    label: str,
    *,
    top: float,
    span: tuple[float, float],
    logarithmic: bool,
    style: str,
) -> Chart:
    """A small histogram: the selection's share of rows in each bin over the pool's.

    Args:
      edges: ``[b+1]`` for counts ``[b]``.
      top: the share at the upper edge; what is larger ends there.
      span: the values at the left and right edge, the same for every run, so that runs can be compared.
      style: the selection's classes.
    """
    wide, high = 190, 34
    low, up = (max(value, 0.5) for value in span) if logarithmic else span
    x = Scale(low, up, 0, wide, logarithmic)
    drawing = _Drawing(wide, high + 3, wide)

    def outline(counts: Sequence[int]) -> list[tuple[float, float]]:
        total = max(sum(counts), 1)
        ends = [x(max(edge, 0.5) if logarithmic else edge) for edge in edges]
        levels = [1 + high - (high - 2) * min(many / total / top, 1.0) for many in counts]
        inner = [(at, level) for pair, level in zip(pairwise(ends), levels, strict=True) for at in pair]
        return [(ends[0], 1 + high), *inner, (ends[-1], 1 + high)]

    drawing.path(outline(pool), "pool", close=True)
    drawing.path(outline(selected), f"curve {style}")
    drawing.path([(0, 1 + high), (wide, 1 + high)], "grid")
    return drawing.finished(label, "spark")


def dot_chart(
    names: Sequence[str], values: Sequence[float | None], label: str, *, reference: int = -1, unit: str = ""
) -> Chart:
    """One value for each name, on a common axis from 0; ``reference``: which of them is marked."""
    width, row = HALF[0], 22
    height = TOP + BOTTOM + row * len(names)
    drawing = _Drawing(width, height, width - 14)
    left = LEFT + LETTER * max((min(len(name), LONGEST) for name in names), default=0)
    known = [value for value in values if value is not None]
    top = nice_ticks(max([0.0, *known]) or 1.0, 4)
    drawing.y = Scale(0, len(names), TOP, height - BOTTOM)
    drawing.x = Scale(min([0.0, *known]), top[-1], left, drawing.right)
    for value in top:
        at = drawing.x(value)
        drawing.path([(at, TOP), (at, drawing.floor)], "grid")
        drawing.add("text", tick_text(value) + unit, x=at, y=drawing.floor + 18, text_anchor="middle")
    for at, (name, value) in enumerate(zip(names, values, strict=True)):
        y = drawing.y(at + 0.5)
        drawing.add("text", shortened(name), x=left - 12, y=y + 4, text_anchor="end", class_="name")
        if value is not None and math.isfinite(value):
            drawing.add("circle", cx=drawing.x(value), cy=y, r=4, class_="reference" if at == reference else "main")
    return drawing.finished(label)


def series_class(series: int) -> str:
    """The style sheet's classes of a run's line."""
    return f"s{series % SERIES}" + (" dashed" if series >= SERIES else "")


def shortened(text: str) -> str:
    """As much of a name as fits beside a chart; in a sweep it is the end in which names differ."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 13]}…{text[-12:]}"


def _path(points: Sequence[tuple[float, float]]) -> str:
    finite = [(a, b) for a, b in points if math.isfinite(a) and math.isfinite(b)]
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in finite) if finite else ""
