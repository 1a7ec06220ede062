"""Everything: the table's first row, with which every selection is compared."""

import numpy as np

from mig_jax.samplers.config import SamplerOptions
from mig_jax.samplers.order import Order
from mig_jax.samplers.task import Sampler, SamplingTask


class Options(SamplerOptions, frozen=True):
    pass


def sample(task: SamplingTask, n: int) -> Order:
    """All points in file order, without those that are excluded."""
    points = np.flatnonzero(~task.limit.banned).astype(np.int64)
    return Order(points, np.zeros(len(points)), "everything", {})


_WHOLE = "it takes everything"
POOL = Sampler(
    sample, Options, refuses={"first": _WHOLE, "caps": _WHOLE, "minima": _WHOLE, "tokens": _WHOLE}, takes_all=True
)
