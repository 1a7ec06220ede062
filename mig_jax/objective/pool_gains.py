"""Gains of many points at one mass x, in float64 on the host, and what each tag contributes to a gain.

With u_d = row d of U = V P (see matrices.py), s_d the score and x the mass at each label:

    first order   G(d) = s_d u_d . phi'(x) = s_d sum_{l in L_d} y_l,   y = P phi'(x)
    exact         G(d) = sum_k phi(x_k + s_d u_dk) - phi(x_k)
"""

import numpy as np
from jaxtyping import Float64, Int64

from mig_jax.core.index import PointArray, as_points
from mig_jax.encode.encoded import Encoded
from mig_jax.labels.label_graph import Propagation
from mig_jax.objective.matrices import label_matrix, propagation_matrix, unit_masses
from mig_jax.objective.phi import Phi

BLOCK = 100_000  # points whose exact gains are computed at once
TAG_BLOCK = 200_000  # tags whose gains are computed at once: each reaches all its neighbours


def first_order_gains(
    encoded: Encoded, p: Propagation, phi: Phi, x: Float64[np.ndarray, " L"]
) -> Float64[np.ndarray, " M"]:
    """G(d) = s_d sum_{l in L_d} y_l of every point at mass x, with y = P phi'(x)."""
    y = propagation_matrix(p) @ phi.slope(x)
    owner = np.repeat(np.arange(len(encoded)), encoded.label_count)
    return encoded.score * sum_at(owner, y[encoded.label_idx], len(encoded))


def exact_gains(
    encoded: Encoded,
    p: Propagation,
    phi: Phi,
    x: Float64[np.ndarray, " L"],
    points: Int64[PointArray, " m"] | None = None,
) -> Float64[np.ndarray, " m"]:
    """G(d) = E(S + d) - E(S) = sum_k phi(x_k + s_d u_dk) - phi(x_k) at mass x; None: of every point."""
    matrix = propagation_matrix(p)
    points = as_points(np.arange(len(encoded))) if points is None else points
    out = np.zeros(len(points))
    for lo in range(0, len(points), BLOCK):
        block = as_points(points[lo : lo + BLOCK])
        reach = unit_masses(label_matrix(encoded, block), matrix)
        mass = reach.data * np.repeat(encoded.score[block], np.diff(reach.indptr))
        row = np.repeat(np.arange(len(block)), np.diff(reach.indptr))
        out[lo : lo + BLOCK] = np.bincount(row, weights=phi.rise(x[reach.indices], mass), minlength=len(block))
    return out


def gains_and_tag_gains(
    encoded: Encoded, p: Propagation, phi: Phi, x: Float64[np.ndarray, " L"], points: Int64[PointArray, " n"], gain: str
) -> tuple[Float64[np.ndarray, " n"], Int64[np.ndarray, " n1"], Int64[np.ndarray, " Z"], Float64[np.ndarray, " Z"]]:
    """(gains, tag_ptr, tag_label, tag_gain): the gain of each point at mass x, and the part of each of its tags.

    ``gain``: "first_order" or "exact". Shares: see ``Curve``.
    """
    matrix, v, score = propagation_matrix(p), label_matrix(encoded, points), encoded.score[points]
    reach = unit_masses(v, matrix)
    mass = reach.data * np.repeat(score, np.diff(reach.indptr))
    rise, slope = phi.rise(x[reach.indices], mass), phi.slope(x[reach.indices])
    reach.data = mean_slope(slope, rise, mass, gain)
    reach.sort_indices()
    ptr, label, tag_gain = tag_gains(matrix, v, score, reach)
    owner = np.repeat(np.arange(len(points)), np.diff(ptr))
    return sum_at(owner, tag_gain, len(points)), ptr, label, tag_gain


def sum_at(index, value, count: int):
    """The sum of the values at each index, float64 ``[count]`` (numpy returns integers for no values)."""
    return np.bincount(index, weights=value, minlength=count).astype(np.float64)


def mean_slope(slope, rise, mass, gain: str):
    """The gain per unit of mass at a label: phi'(x) for the first-order gain, rise / mass for the exact gain."""
    if gain == "first_order":
        return slope
    return np.divide(rise, mass, out=slope.copy(), where=mass > 0)


def tag_gains(matrix, v, score, weight):
    """The gain of tag l of pick r, s_r sum_k P[l, k] weight[r, k]: CSR (ptr, label, gain) in the order of the tags.

    ``weight``: the gain per unit of mass; an entry for each label that a row reaches, with sorted indices.
    """
    tags, count = np.diff(v.indptr), len(score)
    rank = np.repeat(np.arange(count), tags)
    label = v.indices.astype(np.int64)
    per_score = np.zeros(len(label))
    entry = np.repeat(np.arange(count) * matrix.shape[0], np.diff(weight.indptr)) + weight.indices
    for lo in range(0, len(label), TAG_BLOCK):
        near = matrix[label[lo : lo + TAG_BLOCK]]
        tag = np.repeat(np.arange(near.shape[0]), np.diff(near.indptr))
        at = np.searchsorted(entry, rank[lo + tag] * matrix.shape[0] + near.indices)
        per_score[lo : lo + TAG_BLOCK] = np.bincount(tag, near.data * weight.data[at], near.shape[0])
    ptr = np.concatenate([[0], np.cumsum(tags)]).astype(np.int64)
    return ptr, label, per_score * score[rank]
