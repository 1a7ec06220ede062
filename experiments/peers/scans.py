"""The naive ways, in float32: all gains anew for every pick, from padded tags or the reference's dense matrix."""

import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments.peers.result import PeerResult, candidates
from mig_jax.core.index import as_points
from mig_jax.encode import Encoded
from mig_jax.labels.label_graph import Propagation
from mig_jax.objective import Phi
from mig_jax.objective.matrices import label_matrix, propagation_matrix, unit_masses

MOST_BYTES = 3_000_000_000


def scan_jax(encoded: Encoded, propagation: Propagation, phi: Phi, picks: int, gain: str = "first_order") -> PeerResult:
    """A full scan for each pick: one compiled loop, sparse padded tags."""
    start = time.perf_counter()
    rows, count = candidates(encoded), len(encoded.labels)
    reach = unit_masses(label_matrix(encoded, as_points(rows)), propagation_matrix(propagation))
    if gain == "exact":
        labels, part = _padded(reach.indptr, reach.indices, reach.data, count)
    else:
        labels, part = _padded(*_tags(encoded, rows), None, count)
    score = encoded.score[rows].astype(np.float32)
    p_labels, p_part = _padded(propagation.ptr, propagation.idx, propagation.val, count)
    far, far_part = _padded(reach.indptr, reach.indices, reach.data, count)
    data = jax.device_put((labels, part, score, p_labels, p_part, far, far_part))
    run = jax.jit(partial(_scan, picks=min(picks, len(rows)), use_exact=gain == "exact"))
    return _timed(run, (data, phi), rows, start)


def dense_jax(encoded: Encoded, propagation: Propagation, phi: Phi, picks: int) -> PeerResult:
    """The reference's formulation: a dense N x L matrix, a product and an argmax for each pick."""
    start = time.perf_counter()
    rows, mass = dense_mass(encoded, propagation)
    run = jax.jit(partial(_dense, picks=min(picks, len(rows))))
    return _timed(run, (jax.device_put(mass), phi), rows, start)


def dense_numpy(encoded: Encoded, propagation: Propagation, phi: Phi, picks: int) -> PeerResult:
    """The same in a few lines of NumPy."""
    start = time.perf_counter()
    rows, mass = dense_mass(encoded, propagation)
    ready = time.perf_counter()
    x, free, points, gains = np.zeros(mass.shape[1], np.float32), np.ones(len(mass), bool), [], []
    for _ in range(min(picks, len(rows))):
        gain = np.where(free, mass @ phi.slope(x), -1.0)
        best = int(np.argmax(gain))
        if gain[best] <= 0:
            break
        free[best] = False
        x += mass[best]
        points.append(rows[best])
        gains.append(gain[best])
    seconds = time.perf_counter() - ready
    return PeerResult(np.array(points), np.array(gains), len(rows) * len(points), 0.0, ready - start, seconds)


def dense_bytes(encoded: Encoded) -> int:
    """What the dense matrix would take."""
    return 4 * len(encoded) * len(encoded.labels)


def dense_mass(encoded: Encoded, propagation: Propagation) -> tuple[np.ndarray, np.ndarray]:
    """(rows, their mass at every label, float32)."""
    if dense_bytes(encoded) >= MOST_BYTES:
        raise ValueError(f"{len(encoded)} rows x {len(encoded.labels)} labels: the dense matrix passes 3 GB")
    rows = candidates(encoded)
    reach = unit_masses(label_matrix(encoded, as_points(rows)), propagation_matrix(propagation))
    reach.data *= np.repeat(encoded.score[rows], np.diff(reach.indptr))
    return rows, reach.astype(np.float32).toarray()


def _tags(encoded: Encoded, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    tags = label_matrix(encoded, as_points(rows))
    return tags.indptr, tags.indices


def _padded(ptr, idx, val, count: int):
    """CSR as two matrices ``[widest, N]``: label ``count`` and part 0 where a row has no more."""
    width = np.diff(ptr)
    widest = int(width.max(initial=1))
    if 8 * widest * len(width) >= MOST_BYTES:
        raise ValueError(f"{len(width)} rows padded to {widest} labels pass 3 GB")
    owner = np.repeat(np.arange(len(width)), width)
    entry = np.arange(len(owner)) - np.repeat(ptr[:-1], width)
    labels = np.full((widest, len(width)), count, np.int32)
    labels[entry, owner] = idx
    if val is None:
        return labels, None
    part = np.zeros(labels.shape, np.float32)
    part[entry, owner] = val
    return labels, part


def _scan(data, phi: Phi, picks: int, use_exact: bool):
    labels, part, score, p_labels, p_part, far, far_part = data
    count = p_labels.shape[1]

    def gain_of(x):
        if use_exact:
            return sum(phi.rise(x[labels[i]], score * part[i]) * (labels[i] < count) for i in range(labels.shape[0]))
        slope = phi.slope(x)
        y = jnp.append(sum(slope[p_labels[i]] * p_part[i] for i in range(p_labels.shape[0])), 0.0)
        return score * sum(y[labels[i]] for i in range(labels.shape[0]))

    def absorb(x, best):
        return x.at[far[:, best]].add(score[best] * far_part[:, best])

    return _loop(gain_of, absorb, jnp.zeros(count + 1), len(score), picks)


def _dense(mass, phi: Phi, picks: int):
    return _loop(
        lambda x: mass @ phi.slope(x), lambda x, best: x + mass[best], jnp.zeros(mass.shape[1]), *(len(mass), picks)
    )


def _loop(gain_of, absorb, x, rows: int, picks: int):
    """(count, points, gains): the first of the highest gains, until none gains or all are picked."""

    def step(carry):
        count, _, x, free, points, gains = carry
        gain = jnp.where(free, gain_of(x), -1.0)
        best = jnp.argmax(gain)
        good = gain[best] > 0
        points, gains = points.at[count].set(best), gains.at[count].set(gain[best])
        return count + good, good, jnp.where(good, absorb(x, best), x), free.at[best].set(False), points, gains

    start = (0, True, x, jnp.ones(rows, bool), jnp.zeros(picks, jnp.int32), jnp.zeros(picks))
    count, _, _, _, points, gains = jax.lax.while_loop(lambda c: (c[0] < picks) & c[1], step, start)
    return count, points, gains


def _timed(run, arguments, rows: np.ndarray, start: float) -> PeerResult:
    ready = time.perf_counter()
    compiled = run.lower(*arguments).compile()
    begin = time.perf_counter()
    count, points, gains = jax.device_get(compiled(*arguments))
    end = time.perf_counter()
    count = int(count)
    found = rows[points[:count]]
    return PeerResult(found, gains[:count], len(rows) * count, begin - ready, ready - start, end - begin)
