"""IFD: the rows whose answer the instruction helps least with (tianyi-lab/Cherry_LLM's score), as in MIG's table."""

import numpy as np

from mig_jax.errors import UserError
from mig_jax.samplers.order import Order
from mig_jax.samplers.task import Sampler, Task


def sample(task: Task, n: int) -> Order:
    """Of the points with 0 <= IFD <= 1 the n highest, equals in file order; fewer where there are fewer.

    Raises:
      UserError: no point has an IFD in that range.
    """
    kept = np.flatnonzero((task.ifd >= 0) & (task.ifd <= 1))
    if not len(kept):
        raise UserError(
            f"sampler=ifd: none of the {len(task.ifd)} usable rows has an IFD from 0 to 1"
            f" ({np.isnan(task.ifd).sum()} have none at all; it is read from ifd_score.content, or pool.fields.ifd=)"
        )
    points = kept[np.argsort(-task.ifd[kept], kind="stable")][:n].astype(np.int64)
    return Order(points, task.ifd[points], "IFD", {})


IFD = Sampler(sample)
