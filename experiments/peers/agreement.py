"""How far a selection agrees with the float64 greedy, and whether float32 can be blamed where it does not."""

from collections import Counter
from typing import Any

import numpy as np

from mig_jax.core.index import as_points
from mig_jax.encode import Encoded
from mig_jax.labels.label_graph import Propagation
from mig_jax.objective import Phi
from mig_jax.objective.information_curve import curve


def differences(points: np.ndarray, oracle: np.ndarray, margins: np.ndarray) -> list[dict[str, Any]]:
    """Where two orders part, each time from a common state.

    Both are walked step by step. At the first step that differs the oracle's margin is noted: how near its runner-up
    was, relative to the pick. The walk goes on to where both have picked the same rows again (a swap of two rows takes
    two steps), for from there on the masses are equal and a difference has a cause of its own. What differs before is a
    consequence, and counted only. ``length`` runs to the end where the sets never meet again.
    """
    found, step, n = [], 0, min(len(points), len(oracle))
    apart = np.flatnonzero(points[:n] != oracle[:n])
    while (at := np.searchsorted(apart, step)) < len(apart):
        first = step = int(apart[at])
        owed: Counter[int] = Counter()
        while step < n:
            for row, sign in ((int(points[step]), 1), (int(oracle[step]), -1)):
                owed[row] += sign
                if not owed[row]:
                    del owed[row]
            step += 1
            if not owed:
                break
        found.append({"step": first, "length": step - first, "margin": float(margins[first]), "met": not owed})
    return found


def agreement(
    encoded: Encoded, p: Propagation, phi: Phi, points: np.ndarray, oracle: np.ndarray, margins: np.ndarray
) -> dict[str, Any]:
    """``points`` against as many picks of the oracle: prefix, positions, set, E(D) in float64, and the differences."""
    n = len(points)
    oracle, margins = oracle[:n], margins[:n]
    same = points[: len(oracle)] == oracle
    parted = differences(points, oracle, margins)
    reached, best = (
        float(curve(encoded, p, phi, as_points(rows), None).objective[-1]) if n else 1.0 for rows in (points, oracle)
    )
    return {
        "picks": n,
        "prefix": int(np.argmin(same)) if not same.all() else len(same),
        "equal_positions": int(same.sum()),
        "same_set": bool(np.array_equal(np.sort(points), np.sort(oracle))),
        "objective_ratio": reached / best,
        "differences": len(parted),
        "max_margin": max((d["margin"] for d in parted), default=None),
        "parted": parted,
    }
