"""E(D) after each pick of any selection, the gain of each pick and the gains of its tags: float64, on the host.

    E(D) = sum_k phi(x_k) - phi(0),   x = sum_{d in D} s_d u_d

A pick at rank r adds the mass m at each label k that it reaches: an event (k, r, m). Sorted by (k, r), the mass before
an event is a running sum within its label, so the whole curve is a few passes over all events, not a loop over picks.
The sum of each label starts at 0, so the mass before its first event is 0 and not the rounding of a difference. The
curve does not depend on how the points were selected: all samplers are judged by it.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float64, Int64

from mig_jax.core.html import Described
from mig_jax.core.index import PointArray
from mig_jax.encode.encoded import Encoded
from mig_jax.labels.label_graph import Propagation
from mig_jax.objective.matrices import label_matrix, propagation_matrix, unit_masses
from mig_jax.objective.phi import Phi
from mig_jax.objective.pool_gains import mean_slope, sum_at, tag_gains


@dataclass(frozen=True, repr=False)
class Curve(Described):
    """E(D) and gains along n picks, in their order.

    ``objective``: E after each pick. ``first_order``, ``exact``: the two gains of each pick when it was picked. ``x``:
    the final mass at each label. ``tag_ptr``, ``tag_label``, ``tag_gain``: CSR of what each tag of a pick
    gained, in the order of the row's tags; they sum to the pick's gain of the requested kind.
    """

    objective: Float64[np.ndarray, " n"]
    first_order: Float64[np.ndarray, " n"]
    exact: Float64[np.ndarray, " n"]
    x: Float64[np.ndarray, " L"]
    tag_ptr: Int64[np.ndarray, " n1"]
    tag_label: Int64[np.ndarray, " Z"]
    tag_gain: Float64[np.ndarray, " Z"]

    def _facts(self) -> dict[str, str]:
        reached = f"{self.objective[-1]:,.4g}" if len(self.objective) else "0"
        return {"picks": f"{len(self.objective):,}", "objective": reached, "labels": f"{np.count_nonzero(self.x):,}"}


def curve(
    encoded: Encoded, p: Propagation, phi: Phi, points: Int64[PointArray, " n"], gain: str | None = "first_order"
) -> Curve:
    """E, gains of ``points`` and of their tags, picked in this order.

    Args:
      gain: the kind of the tags' gains, "first_order" or "exact"; None: none are computed.
    """
    n, count = len(points), len(encoded.labels)
    matrix = propagation_matrix(p)
    v = label_matrix(encoded, points)
    score = encoded.score[points]
    reach = unit_masses(v, matrix).tocsc()  # by label, the picks of each in order
    rank, label = reach.indices.astype(np.int64), np.repeat(np.arange(count), np.diff(reach.indptr))
    mass = reach.data * score[rank]
    before = np.zeros(len(mass))
    for a, b in pairwise(np.asarray(reach.indptr).tolist()):
        np.cumsum(mass[a : b - 1], out=before[a + 1 : b])
    rise, slope = phi.rise(before, mass), phi.slope(before)
    exact = sum_at(rank, rise, n)
    first_order = sum_at(rank, slope * mass, n)
    x = sum_at(label, mass, count)

    if gain is None:
        none = np.zeros(0)
        return Curve(np.cumsum(exact), first_order, exact, x, np.zeros(n + 1, np.int64), none.astype(np.int64), none)
    weight = sp.csc_array((mean_slope(slope, rise, mass, gain), reach.indices, reach.indptr), shape=(n, count)).tocsr()
    return Curve(np.cumsum(exact), first_order, exact, x, *tag_gains(matrix, v, score, weight))
