"""Synthetic pools of any size with the statistics of a real pool: some frequent tags, a long tail, similar labels.

python -m experiments.synthetic --rows 939000        # the size of Tulu3; prints statistics
"""

import argparse
from collections.abc import Iterator

import numpy as np

from mig_jax.encode import Encoded
from mig_jax.labels import LabelGraph


def synthetic_pool(
    rows: int = 939_000,
    labels: int = 4_531,
    *,
    tags: float = 4.0,
    degree: float = 4.0,
    max_degree: int = 21,
    integer_scores: bool = False,
    seed: int = 0,
) -> tuple[Encoded, LabelGraph]:
    """A pool as arrays and its label graph.

    Args:
      rows, labels: N and L.
      tags: mean tags a row (1 + Poisson, at most 12, repeats within a row removed).
      degree: mean degree of the label graph; degrees are skewed, none above ``max_degree``.
      integer_scores: scores 1..6, so that thousands of gains are equal.
    """
    rng = np.random.default_rng(seed)
    rank, reach = _popularity(labels, rng)
    ptr, label, score = _rows(rows, rank, reach, tags, integer_scores, rng)
    names = label_names(labels)
    encoded = Encoded(np.arange(rows), ptr, label, score, names, {})
    return encoded, _graph(names, degree, max_degree, rng)


def synthetic_chunks(
    rows: int, labels: int, *, tags: float = 4.0, seed: int = 0, chunk: int = 1_000_000
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rows of such a pool in chunks: (label_ptr, label_idx, score). For pools larger than memory."""
    rank, reach = _popularity(labels, np.random.default_rng(seed))
    for part, start in enumerate(range(0, rows, chunk)):
        rng = np.random.default_rng([seed, 1, part])
        yield _rows(min(chunk, rows - start), rank, reach, tags, False, rng)


def synthetic_graph(labels: int, degree: float = 4.0, max_degree: int = 21, seed: int = 0) -> LabelGraph:
    """The label graph alone."""
    return _graph(label_names(labels), degree, max_degree, np.random.default_rng([seed, 2]))


def label_names(labels: int) -> tuple[str, ...]:
    """L names, sorted."""
    return tuple(f"label {i:06d}" for i in range(labels))


def _popularity(labels: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Labels by falling frequency, and the cumulated frequencies."""
    popularity = 1.0 / np.arange(1, labels + 1) ** 0.8
    return rng.permutation(labels), np.cumsum(popularity) / popularity.sum()


def _rows(rows: int, rank, reach, tags: float, integer_scores: bool, rng: np.random.Generator):
    labels = len(rank)
    count = np.minimum(1 + rng.poisson(tags - 1, rows), 12)
    drawn = rank[np.searchsorted(reach, rng.random(count.sum())).clip(0, labels - 1)]
    owner = np.repeat(np.arange(rows), count)
    key = np.unique(owner * labels + drawn)
    owner, label = key // labels, (key % labels).astype(np.int32)
    ptr = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=rows))]).astype(np.int64)
    quality, complexity = rng.normal(4.0, 0.8, rows).clip(1, 6), rng.normal(2.6, 0.8, rows).clip(1, 6)
    score = rng.integers(1, 7, rows).astype(np.float64) if integer_scores else quality * complexity
    return ptr, label, score


def _graph(names: tuple[str, ...], degree: float, max_degree: int, rng: np.random.Generator) -> LabelGraph:
    """Random edges with unequal expected degrees; edges above ``max_degree`` of a label are dropped."""
    count = len(names)
    propensity = rng.lognormal(0.0, 0.8, count)
    count_edges = int(count * degree / 2)
    ends = rng.choice(count, size=(3 * count_edges, 2), p=propensity / propensity.sum())
    low, high = ends.min(1), ends.max(1)
    key = np.unique((low * count + high)[low != high])
    rng.shuffle(key)
    degrees = np.zeros(count, np.int64)
    chosen = []
    for k in key.tolist():
        p, q = divmod(k, count)
        if degrees[p] < max_degree and degrees[q] < max_degree:
            degrees[p] += 1
            degrees[q] += 1
            chosen.append(k)
            if len(chosen) == count_edges:
                break
    edges = np.sort(np.array(chosen, np.int64))
    weight = rng.uniform(0.6, 0.95, len(edges)).astype(np.float32)
    source, target = (edges // count).astype(np.int32), (edges % count).astype(np.int32)
    return LabelGraph(names, np.ones(count, np.float32), source, target, weight, 0.6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=939_000)
    parser.add_argument("--labels", type=int, default=4_531)
    args = parser.parse_args()
    encoded, graph = synthetic_pool(args.rows, args.labels)
    print(f"{len(encoded):,} rows, {len(encoded.label_idx) / len(encoded):.2f} labels a row, {graph.facts()}")


if __name__ == "__main__":
    main()
