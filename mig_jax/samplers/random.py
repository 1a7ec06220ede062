"""A random pick: the baseline that every table starts with."""

import random

import numpy as np

from mig_jax.samplers.order import Order
from mig_jax.samplers.task import Sampler, Task


def sample(task: Task, n: int) -> Order:
    """The first n of one permutation drawn from the seed, so that budgets are nested; with ``compat`` the reference's
    ``random.Random(seed).sample``, whose budgets are not."""
    count = len(task.encoded)
    if task.compat:
        points = np.array(random.Random(task.seed).sample(range(count), n), np.int64)
    else:
        points = np.random.default_rng(task.seed).permutation(count)[:n].astype(np.int64)
    return Order(points, np.zeros(n), "random", {})


RANDOM = Sampler(sample, nested=lambda task: not task.compat)
