"""The settings of ``mig-jax report``."""

from mig_jax.config.struct import Struct


class ReportConfig(Struct, frozen=True):
    """``mig-jax report``."""

    runs: tuple[str, ...] = ()
    out: str | None = None
    overwrite: bool = False
