"""#InsTag's complexity-first diverse sampling (arXiv 2308.07074, algorithm 1; no code was released).

Rows stand by their number of tags, most first, equals in file order. A pass walks them from the head and takes every
row that has a tag which no row of this pass has; passes follow each other until n rows are taken. When a pass takes
nothing, the rest is filled from the head.

No pass is walked: the next row that a pass takes is the least, over the tags it has not covered, of the first row left
that carries the tag (a tag's first row cannot lie behind the walk: it would have been taken there). So a pick costs
its tags, and not a walk over the pool.
"""

from collections.abc import Iterator
from heapq import heapify, heappop, heapreplace

import numpy as np

from mig_jax.encode.encoded import Encoded
from mig_jax.samplers.config import SamplerOptions
from mig_jax.samplers.limits import Gate
from mig_jax.samplers.order import Order
from mig_jax.samplers.task import Sampler, SamplingTask


class Options(SamplerOptions, frozen=True):
    repeats: bool


def sample(task: SamplingTask, n: int) -> Order:
    """The n rows that the passes take; rows that are in already count to the first pass."""
    encoded, limit = task.encoded, task.limit
    tags = encoded.tag_count if task.options.repeats and encoded.tag_count is not None else encoded.label_count
    ranked = np.argsort(-tags, kind="stable")
    gate = Gate(limit)
    points = limit.first.tolist()
    gains, why = [0.0] * len(points), limit.why(len(points), "")
    passes = 0
    for minima in gate.phases:
        gate.minima = minima
        for number, point, added in _passes(encoded, ranked, gate, [*points]):
            if len(points) == n:
                break
            gate.take(point)
            points.append(point)
            gains.append(float(added))
            why.append(f"pass {number}" if number else "fill")
            passes = max(passes, number)
            if len(points) % 4096 == 0:
                task.progress("select", len(points), n)
    filled = why.count("fill")
    return Order(
        np.array(points, np.int64), np.array(gains), "tags added in its pass", {"passes": passes, "filled": filled}, why
    )


def _passes(encoded: Encoded, ranked: np.ndarray, gate: Gate, there: list[int]) -> Iterator[tuple[int, int, int]]:
    """(number of the pass, 0 for the fill; point; how many tags it adds) of one pick after another.

    The tags of the points that are ``there`` count as covered in the first pass. The caller takes each pick through
    ``gate`` before it asks for the next.
    """
    rank = np.empty(len(ranked), np.int64)
    rank[ranked] = np.arange(len(ranked))
    owner = np.repeat(np.arange(len(encoded)), encoded.label_count)
    by_label = np.lexsort((rank[owner], encoded.label_idx))  # every label's rows, as they stand
    rows = rank[owner[by_label]].tolist()
    ends = np.cumsum(np.bincount(encoded.label_idx, minlength=len(encoded.labels))).tolist()
    heads = [0, *ends][: len(ends)]
    ranked_list, label_ptr, label_idx = ranked.tolist(), encoded.label_ptr.tolist(), encoded.label_idx.tolist()

    def labels_of(point: int) -> list[int]:
        return label_idx[label_ptr[point] : label_ptr[point + 1]]

    def forward(label: int) -> None:
        """Past the rows that are taken or will never be allowed."""
        while heads[label] < ends[label] and not gate.allows(ranked_list[rows[heads[label]]]):
            heads[label] += 1

    covered = {label for point in there for label in labels_of(point)}
    number, going, live = 0, True, [*range(len(heads))]
    while going:
        number, going = number + 1, bool(covered)  # a pass that had nothing to add to what is there is not the last
        for label in live:
            forward(label)
        live = [t for t in live if heads[t] < ends[t]]
        waiting = [(rows[heads[t]], t) for t in live if t not in covered]
        heapify(waiting)
        while waiting:
            at, label = waiting[0]
            if label in covered:
                heappop(waiting)
                continue
            if not gate.allows(ranked_list[at]):  # a limit was reached in this pass
                forward(label)
                if heads[label] < ends[label]:
                    heapreplace(waiting, (rows[heads[label]], label))
                else:
                    heappop(waiting)
                continue
            mine = labels_of(ranked_list[at])
            added = sum(t not in covered for t in mine)
            covered.update(mine)
            going = True
            yield number, ranked_list[at], added
        covered = set()
    for point in ranked_list:
        if gate.allows(point):
            yield 0, point, 0


INSTAG = Sampler(sample, Options, needs=("labels",))
