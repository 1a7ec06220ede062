"""``limits.*`` as people write them, and the points of the pool that they mean."""

from mig_jax.limits.resolve import check_refused, facts_of_limits, limits_of

__all__ = ["check_refused", "facts_of_limits", "limits_of"]
