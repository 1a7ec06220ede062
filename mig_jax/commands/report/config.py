"""The settings of ``mig-jax report``."""

from mig_jax.config.struct import PathStr, Struct


class ReportConfig(Struct, frozen=True):
    """``mig-jax report``."""

    runs: tuple[str, ...]
    out: PathStr | None
    overwrite: bool
