"""Step 3: tags of near meaning become one, by DBSCAN on their embeddings."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int32, Int64
from scipy import sparse

from mig_jax.commands.vocabulary.tags import Merging, Tags
from mig_jax.core.errors import UserError
from mig_jax.core.progress import Progress, silent
from mig_jax.labels.cosine import cosine_edges

_SLACK = 1e-6  # float32 cosines: what lies on the border is decided once, by DBSCAN
_BLOCK = 1 << 24  # cosines in memory at once while a cluster is measured: 64 MB
_CHAIN = 2.0  # times the distance that may lie between neighbours: a cluster wider than that hangs together by a chain


class Span(NamedTuple):
    """Two tags, and how far apart they are."""

    distance: float
    one: int
    other: int


def near(
    tags: Tags,
    vectors: Float[np.ndarray, "K D"],
    distance: float,
    min_samples: int,
    progress: Progress = silent,
    embedder: str = "the embedder",
) -> Merging:
    """Merge the tags of each cluster into its most frequent one; where none merges, a note has the reason.

    Args:
      vectors: a unit vector for each tag.
      distance: the largest cosine distance of two neighbours (eps).
      min_samples: neighbours, itself counted, that make a tag the core of a cluster.
      embedder: what made the vectors, for the note.

    Raises:
      UserError: so many tags are neighbours that the graph does not fit.
    """
    if len(tags) < 2:
        return Merging(np.arange(len(tags)))
    graph = _graph(vectors, distance, progress)
    cluster = clusters(graph, distance, min_samples)
    alone = cluster < 0
    cluster = np.where(alone, np.cumsum(alone) + cluster.max(initial=0), cluster)  # each one a cluster of its own
    into = tags.first_of(cluster)
    if len(np.unique(into)) == len(tags):
        pairs = int((1.0 - graph[2].astype(np.float64) <= distance).sum())
        return Merging(into, notes=(_nothing(tags, vectors, pairs, distance, min_samples, embedder),))
    order = np.argsort(into, kind="stable")
    found: dict[int, Span] = {}
    for members in np.split(order, np.flatnonzero(np.diff(into[order])) + 1):
        if len(members) > 1:
            found[int(into[members[0]])] = span(vectors, members)
    of_label = {
        label: {"span": round(far.distance, 4), "between": [tags.names[far.one], tags.names[far.other]]}
        for label, far in found.items()
    }
    return Merging(into, of_label, notes=_chains(tags, into, found, distance))


def clusters(
    graph: tuple[Int32[np.ndarray, " E"], Int32[np.ndarray, " E"], Float32[np.ndarray, " E"], int],
    distance: float,
    min_samples: int,
) -> Int64[np.ndarray, " K"]:
    """The cluster of each tag as scikit-learn's DBSCAN numbers it; -1: of none."""
    from sklearn.cluster import DBSCAN
    from sklearn.neighbors import sort_graph_by_row_values

    one, other, cosine, count = graph
    far, own = np.maximum(1.0 - cosine.astype(np.float64), 0.0), np.arange(count)
    ends = np.concatenate([one, other, own]), np.concatenate([other, one, own])
    values = np.concatenate([far, far, np.zeros(count)])  # each its own, as DBSCAN adds: scikit-learn sorts none empty
    matrix = sparse.coo_matrix((values, ends), shape=(count, count)).tocsr()
    matrix = sort_graph_by_row_values(matrix, warn_when_not_sorted=False)
    return DBSCAN(eps=distance, min_samples=min_samples, metric="precomputed").fit(matrix).labels_.astype(np.int64)


def nearest(vectors: Float[np.ndarray, "K D"]) -> Span:
    """The two tags that are nearest to each other: exact, in blocks; needs two at least."""
    step = max(1, _BLOCK // len(vectors))
    most, one, other = -np.inf, 0, 1
    for start in range(0, len(vectors), step):
        cosine = vectors[start : start + step] @ vectors[start:].T
        cosine[np.tri(*cosine.shape, dtype=bool)] = -np.inf  # itself, and those that came before
        at, to = divmod(int(cosine.argmax()), cosine.shape[1])
        if cosine[at, to] > most:
            most, one, other = float(cosine[at, to]), start + at, start + to
    return Span(max(1.0 - most, 0.0), one, other)


def span(vectors: Float[np.ndarray, "K D"], members: Int64[np.ndarray, " m"]) -> Span:
    """The two tags of a cluster that are farthest apart: exact, in blocks."""
    mine = vectors[members]
    step = max(1, _BLOCK // len(members))
    least, one, other = np.inf, 0, 0
    for start in range(0, len(members), step):
        cosine = mine[start : start + step] @ mine.T
        at, to = divmod(int(cosine.argmin()), len(members))
        if cosine[at, to] < least:
            least, one, other = float(cosine[at, to]), start + at, to
    return Span(max(1.0 - least, 0.0), int(members[min(one, other)]), int(members[max(one, other)]))


def _graph(vectors: np.ndarray, distance: float, progress: Progress):
    """The pairs at most ``distance`` apart, and the number of tags; the matrix of all pairs is never in memory."""

    def neighbours(stage: str, done: int, total: int | None, unit: str = "", /) -> None:
        progress("neighbours", done, total, unit)

    try:
        return *cosine_edges(vectors, 1.0 - distance - _SLACK, progress=neighbours), len(vectors)
    except UserError:
        raise UserError(
            f"more pairs of the {len(vectors):,} tags are neighbours than fit into memory; give a smaller distance",
            key="vocabulary.distance",
            value=f"{distance:g}",
        ) from None


def _nothing(tags: Tags, vectors: np.ndarray, pairs: int, distance: float, min_samples: int, embedder: str) -> str:
    """A note of why no tag merged."""
    if pairs:
        return (
            f"semantic: no tag has vocabulary.min_samples={min_samples} neighbours, itself counted, within"
            f" vocabulary.distance={distance:g} under {embedder}; {pairs:,} pair{'s' * (pairs != 1)} of tags"
            f" {'are' if pairs != 1 else 'is'} as near"
        )
    near = nearest(vectors)
    return (
        f"semantic: no two tags are within vocabulary.distance={distance:g} under {embedder}; the nearest are"
        f" {tags.names[near.one]!r} and {tags.names[near.other]!r} at {near.distance:.3g}"
    )


def _chains(tags: Tags, into: np.ndarray, found: dict[int, Span], distance: float) -> tuple[str, ...]:
    """A note of the widest cluster that hangs together by a chain only."""
    long = {label: far for label, far in found.items() if far.distance > _CHAIN * distance}
    if not long:
        return ()
    label, widest = max(long.items(), key=lambda item: item[1].distance)
    which = "one cluster hangs" if len(long) == 1 else f"{len(long):,} clusters hang"
    return (
        f"semantic: {which} together by a chain of neighbours; the widest, {tags.names[label]!r} with"
        f" {int((into == label).sum()):,} tags, has {tags.names[widest.one]!r} and {tags.names[widest.other]!r} at"
        f" distance {widest.distance:.2f}. A smaller vocabulary.distance than {distance:g}, or a larger"
        " vocabulary.min_samples, breaks chains",
    )
