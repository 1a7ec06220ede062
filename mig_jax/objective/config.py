"""``phi.*``."""

from typing import Any, Literal

from mig_jax.config.struct import Struct
from mig_jax.core.errors import UserError


class PowerConfig(Struct, frozen=True):
    kind: Literal["power"]
    exponent: float
    eps: float


class ExpConfig(Struct, frozen=True):
    kind: Literal["exp"]
    alpha: float


class LogConfig(Struct, frozen=True):
    kind: Literal["log"]
    c: float


PhiConfig = PowerConfig | ExpConfig | LogConfig
_KINDS: dict[str, type[Struct]] = {"power": PowerConfig, "exp": ExpConfig, "log": LogConfig}


def phi_struct(settings: Any) -> type[Struct]:
    """The struct of ``phi.kind``."""
    kind = settings.get("kind") if isinstance(settings, dict) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        raise UserError(key="phi.kind", value=kind, allowed=list(_KINDS))
    return _KINDS[kind]
