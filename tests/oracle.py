"""The naive greedy, written from the paper's formulas: dense matrices, a full scan for every pick, nothing of mig_jax.

Data: row d has labels L_d and a score s_d, e_d = s_d sum_{l in L_d} unit(l). A = diag(W) + alpha offdiag(W), each
column divided by its sum; x = sum_d e_d A over the rows picked; E = sum_k phi(x_k). First order gain (e_d A) . phi'(x),
exact gain E(S + d) - E(S). The highest gain is picked, the lowest row among equals.

Below it, the random pools that tests draw.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Data:
    """``labels``: a tuple of label ids a row; ``w`` the dense symmetric label graph ``[L, L]`` with its diagonal."""

    labels: tuple[tuple[int, ...], ...]
    score: np.ndarray
    w: np.ndarray

    @property
    def v(self) -> np.ndarray:
        """``[N, L]``: 1 where the row has the label."""
        v = np.zeros((len(self.labels), len(self.w)))
        for row, labels in enumerate(self.labels):
            v[row, list(labels)] = 1.0
        return v

    def matrix(self, alpha: float) -> np.ndarray:
        """A, its columns summing to 1."""
        diagonal = np.diag(np.diag(self.w).astype(np.float64))
        a = diagonal + alpha * (self.w.astype(np.float64) - diagonal)
        return a / a.sum(axis=0)


def phi(name: str, a: float, eps: float, x):
    """phi(x) as the paper writes it."""
    if name == "power":
        return (x + eps) ** a
    if name == "exp":
        return 1 - np.exp(-a * x)
    return np.log(1 + x / a)


def slope(name: str, a: float, eps: float, x):
    """phi'(x)."""
    if name == "power":
        return a * (x + eps) ** (a - 1)
    if name == "exp":
        return a * np.exp(-a * x)
    return 1 / (a + x)


class Naive:
    """The state of a naive greedy: gains of every row at once, and a pick of any row."""

    def __init__(self, data: Data, name: str, a: float, eps: float, alpha: float, kind: str, dtype=np.float64):
        self.name, self.a, self.eps, self.kind = name, dtype(a), dtype(eps), kind
        self.v, self.score = data.v.astype(dtype), data.score.astype(dtype)
        self.p = data.matrix(alpha).astype(dtype)
        self.x = np.zeros(len(self.p), dtype)
        self.left = np.ones(len(self.v), bool)

    def gains(self) -> np.ndarray:
        """Of every row; -1 where it is picked."""
        if self.kind == "first_order":
            gain = self.score * (self.v @ (self.p @ slope(self.name, self.a, self.eps, self.x)))
        else:
            after = self.x + self.score[:, None] * (self.v @ self.p)
            gain = (phi(self.name, self.a, self.eps, after) - phi(self.name, self.a, self.eps, self.x)).sum(axis=1)
        return np.where(self.left, gain, -1)

    def pick(self, row: int) -> None:
        """Take this row."""
        self.x = self.x + self.score[row] * (self.v[row] @ self.p)
        self.left[row] = False

    def objective(self) -> float:
        """E, 0 for the empty set."""
        return float((phi(self.name, self.a, self.eps, self.x) - phi(self.name, self.a, self.eps, self.x * 0)).sum())

    def run(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """(rows, gains) of n picks, fewer where nothing gains any more."""
        rows, gains = [], []
        for _ in range(n):
            gain = self.gains()
            best = int(np.argmax(gain))
            if gain[best] <= 0:
                break
            rows.append(best)
            gains.append(gain[best])
            self.pick(best)
        return np.array(rows, np.int64), np.array(gains)


def random_w(rng: np.random.Generator, edges: np.ndarray, count: int) -> np.ndarray:
    """A label graph with these edges (pairs) and random weights; the diagonal is 1 up to rounding."""
    w = np.zeros((count, count), np.float32)
    weight = rng.uniform(0.3, 1.0, len(edges)).astype(np.float32)
    if len(edges):
        w[edges[:, 0], edges[:, 1]] = w[edges[:, 1], edges[:, 0]] = weight
    np.fill_diagonal(w, 1 + rng.integers(-2, 3, count).astype(np.float32) * np.float32(2**-23))
    return w


def random_labels(rng: np.random.Generator, tag_counts, count: int) -> tuple[tuple[int, ...], ...]:
    """Distinct labels for each row, as many as asked (at most ``count``), in no order."""
    return tuple(tuple(rng.permutation(count)[: min(k, count)].tolist()) for k in tag_counts)


def random_scores(rng: np.random.Generator, style: str, count: int) -> np.ndarray:
    """ "ties": 1, 2 or 3; "real": like DEITA's products; "wide": over twelve orders of magnitude."""
    if style == "ties":
        return rng.integers(1, 4, count).astype(np.float64)
    if style == "real":
        return rng.uniform(1, 36, count)
    return 10.0 ** rng.uniform(-6, 6, count)
