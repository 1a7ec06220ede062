"""Tags from embeddings: the labels that lie nearest to a text, for pools that no tagger has read.

Float32 finds candidates, float64 decides, as in ``mig_jax.vectors.novelty``. Two labels may lie
equally near to a text, or one right at the threshold; a matrix product rounds such cases by the shape of its tiles and
the machine that runs it. So the devices only list candidates, a few more than asked for. Their cosines are summed again
in float64, in an order that the vectors' length alone decides, and rounded to float32: by these numbers, which are the
ones returned, labels are compared with the threshold and with each other. Where the list might lack a label (more that
lie equally near than it has room for), all labels of that text are computed so. What comes out is independent of
blocks, neighbours and devices.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32

from mig_jax.models.inference.loaded import in_flight
from mig_jax.vectors.novelty import slack

BLOCK = 1024  # texts that are compared at once: 16 MB of cosines for 4,096 labels
SPARE = 8  # candidates beyond those asked for, so that a tie rarely needs all labels
ROUNDING = 2.0**-23  # a float64 cosine below 1 moves by less than this when it is rounded to float32
NO_LABEL = -1
PIECE = 1 << 21  # float64 products in memory at once: 16 MB


class Candidates(NamedTuple):
    """Of each of B texts the labels whose float32 cosine is largest, C of them, largest first."""

    label: Int32[Array | np.ndarray, "B C"]
    cosine: Float32[Array | np.ndarray, "B C"]


def nearest_labels(
    vector_nxD: Float[np.ndarray, "n D"],
    label_LxD: Float[np.ndarray, "L D"],
    *,
    threshold: float,
    most: int,
    block: int = BLOCK,
) -> tuple[Int32[np.ndarray, "n C"], Float32[np.ndarray, "n C"]]:
    """For each text the at most ``most`` labels l with cos(text, l) >= threshold, nearest first.

    Labels that lie equally near come in the order of their numbers.

    Args:
      vector_nxD: embeddings of the texts, finite, of any length; one of zeros gets no label. A ``numpy.memmap`` is read
        block by block.
      label_LxD: embeddings of the labels, likewise; L >= 1. A label of zeros is never returned.
      threshold: least cosine, in [-1, 1]; compared in float32, as the cosines are.
      most: C, at least 1; more than L is allowed.
      block: texts on the device at once; decides how fast it is and nothing else.

    Returns:
      (label numbers, their cosines), ``[n, C]``; -1 and 0 where a text has no more.

    Raises:
      ValueError: ``most`` is less than 1, or the two kinds of vectors differ in length.
    """
    if most < 1:
        raise ValueError(f"most={most}: must be at least 1")
    if vector_nxD.shape[1] != label_LxD.shape[1]:
        raise ValueError(f"texts have vectors of {vector_nxD.shape[1]} numbers, labels of {label_LxD.shape[1]}")
    labels = _Labels(label_LxD)
    keep = min(most + SPARE, len(labels.unit_LxD))

    def send(start: int) -> tuple[np.ndarray, Candidates]:
        unit_mxD = _unit(vector_nxD[start : start + block])
        padded_BxD = np.zeros((block, unit_mxD.shape[1]), np.float32)
        padded_BxD[: len(unit_mxD)] = unit_mxD
        return unit_mxD, _candidates(padded_BxD, labels.device_LxD, keep=keep)

    def receive(start: int, sent: tuple[np.ndarray, Candidates]) -> tuple[np.ndarray, np.ndarray]:
        unit_mxD, found = sent
        host = Candidates(*(np.asarray(field)[: len(unit_mxD)] for field in found))
        return _decide(unit_mxD, labels, host, np.float32(threshold), most)

    out = np.full((len(vector_nxD), most), NO_LABEL, np.int32), np.zeros((len(vector_nxD), most), np.float32)
    starts = range(0, len(vector_nxD), block)
    for start, (label_mxC, cosine_mxC) in zip(starts, in_flight(starts, send, receive), strict=True):
        out[0][start : start + block], out[1][start : start + block] = label_mxC, cosine_mxC
    return out


class _Labels:
    """The labels' unit vectors, on the host and on the device; ``zero_L``: those that are no direction."""

    def __init__(self, label_LxD: np.ndarray):
        self.unit_LxD = _unit(label_LxD)
        self.device_LxD = jnp.asarray(self.unit_LxD)
        self.zero_L = np.logical_not(self.unit_LxD.any(axis=1))


@partial(jax.jit, static_argnames="keep")
def _candidates(unit_BxD: Float32[Array, "B D"], unit_LxD: Float32[Array, "L D"], *, keep: int) -> Candidates:
    """The ``keep`` labels of largest cosine; the labels are an argument, so that others compile nothing anew."""
    # Accelerators round float32 factors to bfloat16 or TF32 by default.
    cosine_BxL = jnp.matmul(unit_BxD, unit_LxD.T, precision=jax.lax.Precision.HIGHEST)
    cosine_BxC, label_BxC = jax.lax.top_k(cosine_BxL, keep)
    return Candidates(label_BxC, cosine_BxC)


def _decide(
    unit_mxD: np.ndarray, labels: _Labels, found: Candidates, threshold: np.float32, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """The labels of m texts by their canonical cosines: (label, cosine), ``[m, most]``."""
    m, count = found.label.shape
    number_mxC = np.sort(found.label, axis=1)  # by number, so that a stable sort by cosine leaves ties in that order
    cosine_mxC = np.empty((m, count), np.float32)
    step = max(1, PIECE // max(1, count * unit_mxD.shape[1]))
    for start in range(0, m, step):
        rows = slice(start, start + step)
        cosine_mxC[rows] = _cosines(unit_mxD[rows, None], labels.unit_LxD[number_mxC[rows]])
    label, cosine = _first(number_mxC, cosine_mxC, labels, threshold, most)

    if count < len(labels.unit_LxD):
        # A label that is not listed has at most the last one's float32 cosine, and lies at most so far above it.
        reach_m = found.cosine[:, -1].astype(np.float64) + 2 * slack(unit_mxD.shape[1]) + ROUNDING
        least_m = np.where(label[:, -1] == NO_LABEL, threshold, cosine[:, -1])
        every = np.arange(len(labels.unit_LxD), dtype=np.int32)[None]
        for text in np.flatnonzero((reach_m >= least_m) & unit_mxD.any(axis=1)):
            cosine_1xL = _cosines(unit_mxD[text], labels.unit_LxD)[None]
            label[text], cosine[text] = (one[0] for one in _first(every, cosine_1xL, labels, threshold, most))
    none = ~unit_mxD.any(axis=1)
    label[none], cosine[none] = NO_LABEL, 0
    return label, cosine


def _first(
    number_mxC: np.ndarray, cosine_mxC: np.ndarray, labels: _Labels, threshold: np.float32, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """The first ``most`` by cosine of those that reach the threshold; ``number_mxC`` ascends in each row."""
    rank_mxC = np.where((cosine_mxC >= threshold) & ~labels.zero_L[number_mxC], cosine_mxC, np.float32(-np.inf))
    order = np.argsort(-rank_mxC, axis=1, kind="stable")[:, :most]
    rank, number = np.take_along_axis(rank_mxC, order, axis=1), np.take_along_axis(number_mxC, order, axis=1)
    label = np.full((len(rank), most), NO_LABEL, np.int32)
    cosine = np.zeros((len(rank), most), np.float32)
    label[:, : rank.shape[1]] = np.where(rank > -np.inf, number, NO_LABEL)
    cosine[:, : rank.shape[1]] = np.where(rank > -np.inf, rank, 0)
    return label, cosine


def _cosines(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Canonical cosines of unit vectors that broadcast; float32.

    Products of float32 numbers are exact in float64, and NumPy sums a contiguous row pairwise: in an order that depends
    on its length only.
    """
    products = others.astype(np.float64, order="C") * one
    return products.sum(axis=-1).clip(-1.0, 1.0).astype(np.float32)


def _unit(vector_mxD: np.ndarray) -> np.ndarray:
    """Unit vectors, float32; zeros stay zeros. A vector's bits depend on itself alone."""
    vector = np.asarray(vector_mxD, np.float64)
    length = np.sqrt((vector * vector).sum(axis=1, keepdims=True))
    return (vector / np.where(length > 0, length, 1.0)).astype(np.float32)
