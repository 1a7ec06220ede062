"""IFD: the rows whose answer the instruction helps least with (tianyi-lab/Cherry_LLM's score), as in MIG's table."""

import numpy as np

from mig_jax.core.errors import UserError
from mig_jax.samplers.config import SamplerOptions
from mig_jax.samplers.limits import first_allowed
from mig_jax.samplers.order import Order
from mig_jax.samplers.task import Sampler, SamplingTask


class Options(SamplerOptions, frozen=True):
    score: str


def sample(task: SamplingTask, n: int) -> Order:
    """Of the points with 0 <= IFD <= 1 the n highest, equals in file order; fewer where there are fewer.

    Raises:
      UserError: no point has an IFD in that range.
    """
    ifd = task.ranking
    assert ifd is not None
    kept = np.flatnonzero((ifd >= 0) & (ifd <= 1))
    if not len(kept):
        raise UserError(
            f"none of the {len(ifd)} usable rows has an IFD from 0 to 1"
            f" ({np.isnan(ifd).sum()} have none at all; it is read from ifd_score.content, or pool.fields.ifd=)",
            key="sampler",
            value="ifd",
        )
    points = first_allowed(kept[np.argsort(-ifd[kept], kind="stable")], n, task.limit)
    return Order(points, ifd[points], "IFD", {}, why=task.limit.why(len(points), "IFD"))


IFD = Sampler(sample, Options, needs=("ranking",))
