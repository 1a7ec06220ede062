"""The lazy greedy (Minoux, 1978) on one thread, in numba and float64: the peer to beat, and the oracle to agree with.

A gain computed earlier bounds today's, so only rows that stand first need a new one. Rows of one tag set are one entry
of the queue (score descending, row ascending), so a pick replaces the first entry rather than pops and pushes. Entries
lie in buckets by bound, 32 for each power of two; the highest nonempty bucket is a 4-ary heap in (gain descending, row
ascending). Bounds only fall, so no bucket above it fills again, and what falls out of it costs one list operation.

What was tried, microseconds a pick (Tulu3-like synthetic pool; 200,000 rows and 20,000 picks / 939,000 and 50,000; 2
shared cores of an EPYC, so +- 20 %), first-order gain:

    y after a pick                                    one 4-ary heap    buckets    buckets, 64-byte entries
    (a) recomputed over two hops                          24 / 46        21 / 35
    (b) increased by P[l, k] dslope_k                     17 / 39        11 / 24            7 / 11
    (c) not kept: P's rows of the tags, on demand         23 / 45        17 / 39
    (d) recomputed where a slope changed, on demand       21 / 41        14 / 31           19 / 28

The peer is (b). Its additions leave other bits than a sum computed anew, so rows that tie exactly may change places:
(d), the oracle, has the bits of the naive greedy. So has the exact gain, with this reserve: rises of power fall up to
rounding only (mig_jax/objective/phi.py), and rows nearer than some 1e-15 may change places.
"""

import time
from functools import cache
from types import ModuleType

import numpy as np

from experiments.peers.result import PeerResult
from mig_jax.core.errors import UserError
from mig_jax.encode import Encoded
from mig_jax.labels.label_graph import Propagation
from mig_jax.objective import Phi, make_phi
from mig_jax.objective.matrices import propagation_matrix
from mig_jax.objective.phi import KINDS

HOW = "the heap needs numba: uv pip install --require-hashes -r requirements/bench.txt"


def have_numba() -> bool:
    """Whether the heap can run here."""
    try:
        _kernels()
    except UserError:
        return False
    return True


def heap_numba(
    encoded: Encoded,
    propagation: Propagation,
    phi: Phi,
    picks: int,
    gain: str = "first_order",
    *,
    update: str = "auto",
    margins: bool = False,
) -> PeerResult:
    """The greedy's picks.

    Args:
      gain: "first_order" or "exact".
      update: how y follows a pick (first-order gain only): "incremental", fastest; "recompute", the naive greedy's
        bits; "auto": incremental, but for exp (its slopes fall below the rounding of the first) and with margins.
      margins: also the margin to the runner-up at every step; takes longer.

    Raises:
      UserError: numba is not installed.
    """
    if gain not in ("first_order", "exact") or update not in ("auto", "incremental", "recompute"):
        raise ValueError(f"gain={gain} update={update}")
    if update == "auto":
        update = "recompute" if margins or phi.kind == "exp" else "incremental"
    kernels = _kernels()
    compile_s = _compile()
    mode = kernels.EXACT if gain == "exact" else kernels.INCREMENTAL if update == "incremental" else kernels.RECOMPUTE
    return _run(kernels, encoded, propagation, phi, picks, mode, margins, compile_s)


def _run(kernels, encoded, p: Propagation, phi: Phi, picks: int, mode: int, margins: bool, compile_s=0.0) -> PeerResult:
    from experiments.peers.heap_group import group  # imports numba

    start = time.perf_counter()
    count = len(encoded.labels)
    columns = propagation_matrix(p).tocsc()
    matrix = (*_csr(p.ptr, p.idx, p.val), *_csr(columns.indptr, columns.indices, columns.data))
    numbers = (KINDS.index(phi.kind), float(phi.a), float(phi.eps))
    ptr, idx = _array(encoded.label_ptr, np.int64), _array(encoded.label_idx, np.int32)
    score = _array(encoded.score, np.float64)
    tags, queue, rec = group(ptr, idx, score, count, mode == kernels.EXACT and phi.kind == "exp")
    pool = (ptr, tags, score, queue, rec, rec.view(np.float64))
    heads = np.full(kernels.BUCKETS, -1, np.int32)
    top = kernels.first_bounds(matrix, numbers, pool, heads, mode)
    ready = time.perf_counter()
    picks = min(picks, len(queue) - len(rec))
    points, gains, margin, evaluations = kernels.pick(matrix, numbers, pool, heads, top, picks, mode, margins)
    end = time.perf_counter()
    facts = {"evaluations": int(evaluations), "entries": len(rec)}
    return PeerResult(
        points, gains, int(evaluations), compile_s, ready - start, end - ready, margin if margins else None, facts
    )


def _csr(ptr, idx, val):
    return _array(ptr, np.int32), _array(idx, np.int32), _array(val, np.float64)


def _array(array, dtype) -> np.ndarray:
    """In the one type that the kernels are compiled for."""
    return np.require(array, dtype, ["C", "W"])


def _tiny() -> tuple[Encoded, Propagation]:
    """Two rows and two labels, to compile on."""
    encoded = Encoded(np.arange(2), np.arange(3), np.array([0, 1], np.int32), np.ones(2), ("a", "b"), {})
    return encoded, Propagation(np.arange(3), np.array([0, 1], np.int32), np.ones(2))


@cache
def _compile() -> float:
    """Seconds that it took this process, once."""
    start = time.perf_counter()
    _run(_kernels(), *_tiny(), make_phi(), 1, _kernels().EXACT, False)
    return time.perf_counter() - start


@cache
def _kernels() -> ModuleType:
    try:
        from experiments.peers import heap_kernels
    except ModuleNotFoundError as error:
        if error.name != "numba":
            raise
        raise UserError(HOW) from None
    return heap_kernels
