"""``plan.*``: what the keys of ``select`` do not say of a pool that does not exist yet."""

from typing import Annotated

import msgspec

from mig_jax.commands.select.config import SelectConfig
from mig_jax.config.struct import PathStr, Positive, Struct


class PlanKeys(Struct, frozen=True):
    rows: Positive | None
    labels: Positive | None
    tags: Annotated[float, msgspec.Meta(ge=1)] | None
    bytes: Positive | None
    measure: bool
    out: PathStr | None


class PlanConfig(SelectConfig, frozen=True, kw_only=True):
    """``mig-jax plan``: a selection's settings, and those of the plan."""

    plan: PlanKeys
