"""A random pick: the baseline that every table starts with."""

import random

import numpy as np

from mig_jax.samplers.config import SamplerOptions
from mig_jax.samplers.limits import first_allowed
from mig_jax.samplers.order import Order
from mig_jax.samplers.task import Sampler, SamplingTask


class Options(SamplerOptions, frozen=True):
    compat: bool


def sample(task: SamplingTask, n: int) -> Order:
    """The first n of one permutation drawn from the seed, so that budgets are nested; with ``compat`` the reference's
    ``random.Random(seed).sample``, whose budgets are not."""
    count = len(task.encoded)
    if task.options.compat:
        ranked = np.array(random.Random(task.seed).sample(range(count), count if task.limit.kinds else n), np.int64)
    else:
        ranked = np.random.default_rng(task.seed).permutation(count).astype(np.int64)
    points = first_allowed(ranked, n, task.limit)
    return Order(points, np.zeros(len(points)), "random", {}, why=task.limit.why(len(points), "drawn"))


RANDOM = Sampler(sample, Options, nested=lambda task: not task.options.compat, compat_needs=("labels", "score"))
