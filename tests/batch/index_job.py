"""A batch job without a model: the result of text i is i + 1, D times."""

from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from mig_jax.batch import BatchJob
from mig_jax.models.inference.packing import Batch, plan_batches

DIM = 3


class Loaded(NamedTuple):
    graphdef: Any = None
    state: Any = ()


class IndexJob(BatchJob):
    """Counts how often it tokenised and loaded."""

    width, blank = DIM, 0.0

    def __init__(self, length: np.ndarray):
        super().__init__("index", "key", self._count_load)
        self.length, self.prepared, self.loads = length, 0, 0

    def _count_load(self) -> Any:
        self.loads += 1
        return SimpleNamespace(loaded=Loaded(), config=None)

    def tokenize(self, progress) -> Any:
        self.prepared += 1
        return SimpleNamespace(length=self.length)

    def plan_batches(self, tokens: Any) -> tuple[Batch, ...]:
        return plan_batches(tokens.length, max_length=32, batch_tokens=64)

    def compute(self, model, tokens, batches: Iterable[Batch]) -> Iterator[tuple[Batch, np.ndarray]]:
        for batch in batches:
            yield batch, results_of(batch)

    def flops(self, batch: Batch) -> float:
        return float(batch.rows * batch.width)


def results_of(batch: Batch) -> np.ndarray:
    """Each text's result tells which text it is."""
    return np.repeat(batch.text[:, None], DIM, axis=1).astype(np.float32) + 1


def lengths() -> np.ndarray:
    """Of 40 texts, one of no tokens among them."""
    length = np.random.default_rng(0).integers(5, 30, 40)
    length[7] = 0
    return length


def expected() -> np.ndarray:
    """The results of all texts of ``lengths``."""
    every = np.repeat(np.arange(1, 41, dtype=np.float32)[:, None], DIM, axis=1)
    every[7] = 0
    return every
