"""CaR: the best rows by score, then the best of every cluster (Ge et al. 2024, arXiv 2402.18191), as in MIG's table.

The published run took the n1 = 1000 best of 52,002 rows and of each of k = 161 clusters the best one (n2 = 1). MIG kept
the ratio n1 : k n2 as the budget grew: so does ``top``.
"""

import hashlib
from dataclasses import dataclass
from math import floor, isqrt
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
from jaxtyping import Float64, Int32, Int64

from mig_jax.core.errors import UserError
from mig_jax.core.index import as_points
from mig_jax.engine import Snapshot, pool_mesh
from mig_jax.samplers.config import SamplerOptions
from mig_jax.samplers.limits import Limits
from mig_jax.samplers.order import Order
from mig_jax.samplers.task import Sampler, SamplingTask
from mig_jax.vectors.kmeans import ShardedPoints, kmeans
from mig_jax.vectors.pca import fit_pca, project


class Options(SamplerOptions, frozen=True):
    score: str
    variance: Annotated[float, msgspec.Meta(gt=0, le=1)]
    clusters: Annotated[int, msgspec.Meta(ge=1)] | None
    n_init: Annotated[int, msgspec.Meta(ge=1)]
    top: Annotated[float, msgspec.Meta(ge=0, le=1)]
    compat: bool
    n1: Annotated[int, msgspec.Meta(ge=0)]


def sample(task: SamplingTask, n: int) -> Order:
    """The share ``top`` of n by score, equals in file order, then from the clusters until there are n.

    Points without a score are clustered with all others but never picked. With ``compat`` as published: ``n1`` by
    score, the best of every cluster, no more.

    Raises:
      UserError: no point has a score, or there are more clusters asked for than points.
    """
    score, options = task.ranking, task.options
    assert score is not None
    without = int(np.isnan(score).sum())
    if without == len(score):
        message = f"none of the {len(score)} usable rows has a score ({options.score})"
        raise UserError(message, key="sampler", value="car")
    clusters = _clusters(task)
    if options.compat:
        picks = as_published(score, clusters.labels, n, options.n1, task.limit)
    else:
        picks = by_score_and_cluster(score, clusters.labels, n, options.top, task.limit)
    rounds = {
        "clusters": int(clusters.facts[1]),
        "components": int(clusters.facts[2]),
        "kmeans_iterations": int(clusters.facts[3]),
        "picked_by_score": picks.by_score,
        "picked_from_clusters": picks.of_clusters,
    }
    notes = (f"{without:,} usable rows have no {options.score}: clustered, but not picked",) if without else ()
    return Order(picks.points, np.nan_to_num(score[picks.points]), "CaR score", rounds, why=picks.why, notes=notes)


@dataclass(frozen=True)
class ClusterPicks:
    """Points in the order of the picks, int64 ``[<= n]``; ``why`` each was taken; how many ``by_score``, and how many
    ``of_clusters``."""

    points: Int64[np.ndarray, " n"]
    why: list[str]
    by_score: int
    of_clusters: int


def by_score_and_cluster(
    score: Float64[np.ndarray, " M"], labels: Int32[np.ndarray, " M"], n: int, top: float, limits: Limits
) -> ClusterPicks:
    """Those that are in already; of the rest of n the share ``top`` by score; then the best point of cluster 0, 1, ..,
    the second best of each, and so on, passing over what is in, until there are n.

    Equals in file order. Ranks count the points that may be picked, those that are in already among them.
    """
    ranked = _Ranked(score, labels, limits)
    best = floor(top * max(n - len(limits.first), 0) + 0.5)
    order = np.lexsort((ranked.labels, ranked.number))
    return ranked.picks(np.flatnonzero(~ranked.taken)[:best], order, n, limits)


def as_published(
    score: Float64[np.ndarray, " M"], labels: Int32[np.ndarray, " M"], n: int, n1: int, limits: Limits
) -> ClusterPicks:
    """The ``n1`` best by score, then the best of every cluster that is not in yet; at most n of them.

    Equals in file order. Clusters in falling order of their numbers as strings ("9", "31", "3", "2", ..): theirs is one
    sort by (cluster, score) downwards.
    """
    ranked = _Ranked(score, labels, limits)
    best = np.arange(min(n1, len(ranked.points)))
    heads = np.flatnonzero(ranked.number == 1).tolist()
    heads.sort(key=lambda place: str(ranked.labels[place]), reverse=True)
    return ranked.picks(best[~ranked.taken[best]], np.array(heads, np.int64), n, limits)


class _Ranked:
    """The points that may be picked and have a score, the best first.

    ``points``, their ``labels``, ``number``: which of its cluster each is, from 1 on; ``taken``: it is in already.
    """

    def __init__(self, score: np.ndarray, labels: np.ndarray, limits: Limits):
        may = np.flatnonzero(~np.isnan(score) & ~limits.banned)
        self.points = may[np.argsort(-score[may], kind="stable")]
        self.labels = labels[self.points]
        by_cluster = np.argsort(self.labels, kind="stable")
        sizes = np.bincount(self.labels)
        self.number = np.empty(len(may), np.int64)
        self.number[by_cluster] = np.arange(len(may)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + 1
        self.taken = np.isin(self.points, limits.first)

    def picks(self, best: np.ndarray, others: np.ndarray, n: int, limits: Limits) -> ClusterPicks:
        """The first n of: those that are in, the ``best`` (places in the ranking), the ``others`` that are not yet."""
        first = limits.first[:n]
        left = n - len(first)
        best, taken = best[:left], self.taken.copy()
        taken[best] = True
        others = others[~taken[others]][: left - len(best)]
        numbers, clusters = self.number[others].tolist(), self.labels[others].tolist()
        why = [
            *limits.why(len(first), ""),
            *(f"rank {place + 1} by score" for place in best.tolist()),
            *(
                f"best of cluster {cluster}" if number == 1 else f"number {number} of cluster {cluster}"
                for number, cluster in zip(numbers, clusters, strict=True)
            ),
        ]
        points = np.concatenate([first, self.points[np.concatenate([best, others])]])
        return ClusterPicks(points.astype(np.int64), why, len(best), len(others))


class _Clustered(NamedTuple):
    """The best clustering so far.

    ``facts``: runs done, clusters, components, iterations of the best; int64 ``[4]``. Of the best: ``inertia`` float64
    ``[]``, ``labels`` int32 ``[M]``.
    """

    facts: Int64[np.ndarray, "4"]
    inertia: Float64[np.ndarray, ""]
    labels: Int32[np.ndarray, " M"]


# The newest clustering by a hash of all that decides it: it is the same for every budget of a run.
_newest: dict[bytes, _Clustered] = {}


def _clusters(task: SamplingTask) -> _Clustered:
    """k-means of the principal components, run n_init times: a run's draws depend on the seed and its number alone."""
    options, vectors = task.options, task.vectors
    assert vectors is not None
    k = options.clusters or max(1, isqrt(len(vectors) // 2))
    if k > len(vectors):
        raise UserError(key="sampler.clusters", value=k, allowed=f"at most {len(vectors)}, the usable rows")
    found = None if task.resume is None else task.resume.state
    if found is not None and found.facts[0] == options.n_init:
        return found
    mesh = task.mesh or pool_mesh()
    coordinates = project(vectors, fit_pca(vectors, options.variance, mesh, task.progress), mesh, task.progress)
    decides = hashlib.sha256(coordinates.data)
    decides.update(repr((coordinates.shape, k, options.n_init, task.seed)).encode())
    if decides.digest() in _newest:
        return _newest[decides.digest()]
    points = ShardedPoints(coordinates, mesh)
    for run in range(int(found.facts[0]) if found is not None else 0, options.n_init):
        stage = f"k-means, run {run + 1} of {options.n_init}"
        new = kmeans(points, k, (task.seed, run), lambda done, stage=stage: task.progress(stage, done, None))
        if found is None or new.inertia < found.inertia:
            facts = np.array([run + 1, k, coordinates.shape[1], new.iterations])
            found = _Clustered(facts, np.array(new.inertia, np.float64), new.labels)
        else:
            found = found._replace(facts=np.array([run + 1, *found.facts[1:]]))
        if task.on_snapshot is not None:
            task.on_snapshot(Snapshot(as_points(np.zeros(0, np.int64)), np.zeros(0), found))
    assert found is not None
    _newest.clear()
    _newest[decides.digest()] = found
    return found


_SHARES = "its budget is shared out by rank and by cluster"
CAR = Sampler(
    sample,
    Options,
    nested=lambda task: task.options.compat,
    state=_Clustered,
    needs=("vectors",),
    refuses={"caps": _SHARES, "minima": _SHARES, "tokens": _SHARES},
)
