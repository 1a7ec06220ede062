"""One file for each system of the table.

A new sampler is a file here with its ``Options``, ``sample`` and ``Sampler``, one line in ``SAMPLERS``, and
conf/sampler/NAME.yaml with the default of each option. ``Sampler.needs`` says which rows it can use.
"""

from mig_jax.core.errors import UserError
from mig_jax.samplers.car import CAR
from mig_jax.samplers.deita import DEITA
from mig_jax.samplers.ifd import IFD
from mig_jax.samplers.instag import INSTAG
from mig_jax.samplers.limits import Limits
from mig_jax.samplers.mig import MIG
from mig_jax.samplers.order import Order
from mig_jax.samplers.pool import POOL
from mig_jax.samplers.qdit import QDIT
from mig_jax.samplers.random import RANDOM
from mig_jax.samplers.task import Rows, Sampler, SamplingTask
from mig_jax.samplers.zip import ZIP

SAMPLERS: dict[str, Sampler] = {
    "mig": MIG,
    "random": RANDOM,
    "ifd": IFD,
    "pool": POOL,
    "instag": INSTAG,
    "deita": DEITA,
    "qdit": QDIT,
    "zip": ZIP,
    "car": CAR,
}

__all__ = ["SAMPLERS", "Limits", "Order", "Rows", "Sampler", "SamplingTask", "find_sampler"]


def find_sampler(name: str) -> Sampler:
    """The sampler of that name.

    Raises:
      UserError: there is none; lists those there are.
    """
    if name not in SAMPLERS:
        raise UserError(key="sampler", value=name, allowed=list(SAMPLERS))
    return SAMPLERS[name]
