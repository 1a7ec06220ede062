"""E(D) after each pick of any order, the gain of each pick and the labels that earned it: float64, on the host.

A pick at rank r adds the mass d at each label k that it reaches: an event (k, r, d). Sorted by (k, r), the mass before
an event is a running sum within its label, so the whole curve is a few passes over all events, not a loop over picks.
Each label's sum starts at 0, so that where no mass came yet there is none, not the rounding of a difference.
Samplers that know no labels are judged by the same curve.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float64, Int64

from mig_jax.core.html import Described
from mig_jax.encode.encoded import Encoded
from mig_jax.labels.label_graph import Propagation
from mig_jax.objective.phi import Phi

BLOCK = 200_000  # tags whose shares are in flight at once: each reaches all its neighbours


@dataclass(frozen=True, repr=False)
class Curve(Described):
    """What n picks earned, in their order.

    ``objective`` E after each pick, ``first_order`` and ``exact`` the two gains of each pick when it was taken; float64
    ``[n]``. ``x`` the final mass at each label; float64 ``[L]``. ``share_ptr`` int64 ``[n+1]``, ``share_label`` and
    ``share`` ``[Z]``: what each tag of a pick earned, in the order of the row's tags; they sum to the gain of the asked
    mode.
    """

    objective: Float64[np.ndarray, " n"]
    first_order: Float64[np.ndarray, " n"]
    exact: Float64[np.ndarray, " n"]
    x: Float64[np.ndarray, " L"]
    share_ptr: Int64[np.ndarray, " n1"]
    share_label: Int64[np.ndarray, " Z"]
    share: Float64[np.ndarray, " Z"]

    def _facts(self) -> dict[str, str]:
        reached = f"{self.objective[-1]:,.4g}" if len(self.objective) else "0"
        return {"picks": f"{len(self.objective):,}", "objective": reached, "labels": f"{np.count_nonzero(self.x):,}"}


def propagation_matrix(p: Propagation) -> sp.csr_array:
    """P as a scipy matrix."""
    count = len(p.ptr) - 1
    return sp.csr_array((p.val, p.idx, p.ptr), shape=(count, count))


def reached(v: sp.csr_array, matrix: sp.csr_array) -> sp.csr_array:
    """V P: the mass that each row's labels bring to each label they reach, per unit of score."""
    return sp.csr_array(v @ matrix)


def label_rows(encoded: Encoded, points: Int64[np.ndarray, " n"] | None = None) -> sp.csr_array:
    """V: a row for each point with a 1 at its labels (no score); of all points, or of those asked, in their order."""
    count = len(encoded.labels)
    whole = sp.csr_array(
        (np.ones(len(encoded.label_idx)), encoded.label_idx, encoded.label_ptr), shape=(len(encoded), count)
    )
    return whole if points is None else whole[points]


def curve(
    encoded: Encoded, p: Propagation, phi: Phi, points: Int64[np.ndarray, " n"], gain: str | None = "first_order"
) -> Curve:
    """E, gains and shares of ``points`` taken in this order; no shares where ``gain`` is None."""
    n, count = len(points), len(encoded.labels)
    matrix = propagation_matrix(p)
    v = label_rows(encoded, points)
    score = encoded.score[points]
    reach = reached(v, matrix).tocsc()  # by label, the picks of each in order
    rank, label = reach.indices.astype(np.int64), np.repeat(np.arange(count), np.diff(reach.indptr))
    mass = reach.data * score[rank]
    before = np.zeros(len(mass))
    for a, b in pairwise(np.asarray(reach.indptr).tolist()):
        np.cumsum(mass[a : b - 1], out=before[a + 1 : b])
    rise, slope = phi.rise(before, mass), phi.slope(before)
    exact = _sums(rank, rise, n)
    first_order = _sums(rank, slope * mass, n)
    x = _sums(label, mass, count)

    if gain is None:
        nothing = np.zeros(0)
        return Curve(
            np.cumsum(exact), first_order, exact, x, np.zeros(n + 1, np.int64), nothing.astype(np.int64), nothing
        )
    weight = sp.csc_array((_mean_slope(slope, rise, mass, gain), reach.indices, reach.indptr), shape=(n, count)).tocsr()
    share_ptr, share_label, share = _tag_shares(matrix, v, score, weight)
    return Curve(np.cumsum(exact), first_order, exact, x, share_ptr, share_label, share)


def gains_at(
    encoded: Encoded, p: Propagation, phi: Phi, x: Float64[np.ndarray, " L"], points: Int64[np.ndarray, " n"], gain: str
) -> tuple[Float64[np.ndarray, " n"], Int64[np.ndarray, " n1"], Int64[np.ndarray, " Z"], Float64[np.ndarray, " Z"]]:
    """(gains, share_ptr, share_label, share): what each point would add alone at mass x, and which tags earn it."""
    matrix, v, score = propagation_matrix(p), label_rows(encoded, points), encoded.score[points]
    reach = reached(v, matrix)
    mass = reach.data * np.repeat(score, np.diff(reach.indptr))
    rise, slope = phi.rise(x[reach.indices], mass), phi.slope(x[reach.indices])
    reach.data = _mean_slope(slope, rise, mass, gain)
    reach.sort_indices()
    ptr, label, share = _tag_shares(matrix, v, score, reach)
    owner = np.repeat(np.arange(len(points)), np.diff(ptr))
    return _sums(owner, share, len(points)), ptr, label, share


def first_order_gains(
    encoded: Encoded, p: Propagation, phi: Phi, x: Float64[np.ndarray, " L"]
) -> Float64[np.ndarray, " M"]:
    """s_d sum_l y_l of every point at mass x: y once, then a gather."""
    y = propagation_matrix(p) @ phi.slope(x)
    owner = np.repeat(np.arange(len(encoded)), encoded.label_count)
    return encoded.score * _sums(owner, y[encoded.label_idx], len(encoded))


def _sums(index, value, count: int):
    """The sum of the values at each index; numpy counts in integers where there are none."""
    return np.bincount(index, weights=value, minlength=count).astype(np.float64)


def _mean_slope(slope, rise, mass, gain: str):
    """phi' before the step, or over it: what a unit of mass earns at a label."""
    if gain == "first_order":
        return slope
    return np.divide(rise, mass, out=slope.copy(), where=mass > 0)


def _tag_shares(matrix, v, score, weight):
    """Tag l of pick r earns s sum_k P[l, k] weight[r, k]: CSR (ptr, label, share) in the order of the rows' tags.

    ``weight`` has an entry wherever a row's labels reach, its indices sorted.
    """
    tags, count = np.diff(v.indptr), len(score)
    rank = np.repeat(np.arange(count), tags)
    label = v.indices.astype(np.int64)
    share = np.zeros(len(label))
    place = np.repeat(np.arange(count) * matrix.shape[0], np.diff(weight.indptr)) + weight.indices
    for lo in range(0, len(label), BLOCK):
        near = matrix[label[lo : lo + BLOCK]]
        tag = np.repeat(np.arange(near.shape[0]), np.diff(near.indptr))
        at = np.searchsorted(place, rank[lo + tag] * matrix.shape[0] + near.indices)
        share[lo : lo + BLOCK] = np.bincount(tag, near.data * weight.data[at], near.shape[0])
    ptr = np.concatenate([[0], np.cumsum(tags)]).astype(np.int64)
    return ptr, label, share * score[rank]
