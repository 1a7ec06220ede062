"""What a selection takes on this machine, in seconds and bytes, from what small runs of the real stages took."""

from mig_jax.commands.plan.config import PlanKeys
from mig_jax.commands.plan.run import Plan, run_plan
from mig_jax.commands.plan.show import as_json, text

__all__ = ["Plan", "PlanKeys", "as_json", "run_plan", "text"]
