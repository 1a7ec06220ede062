"""From ``sampler.*`` to the options of a sampler."""

from collections.abc import Mapping
from typing import Any

import msgspec

from mig_jax.config.check import checked
from mig_jax.config.keys import read
from mig_jax.config.struct import Struct
from mig_jax.samplers import find_sampler


def sampler_options(name: str, settings: Mapping[str, Any]) -> Any:
    """What ``sampler=NAME sampler.key=value ...`` sets: the defaults of conf/sampler/NAME.yaml with ``settings``.

    Raises:
      UserError: there is no such sampler or setting, or a value is out of its range.
    """
    fields = [("sampler", find_sampler(name).options)]
    whole: Any = msgspec.defstruct("Part", fields, bases=(Struct,), frozen=True, kw_only=True)
    return checked({"sampler": {**read(f"sampler/{name}"), **settings}}, whole, "select").sampler
