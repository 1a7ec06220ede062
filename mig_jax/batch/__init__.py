"""Passes: a model over many texts, in batches that are planned beforehand, by any number of processes and lives.

What a pass has computed lies in shards until all of it is there. ``embed`` is one pass, ``annotate`` several.
"""

from mig_jax.batch.compute import Pass, Running, plan_digest
from mig_jax.batch.job import Job, Planned
from mig_jax.batch.shards import Saver, Shards
from mig_jax.batch.team import Team, claim_together, done_already, team_of, too_late

__all__ = [
    "Job",
    "Pass",
    "Planned",
    "Running",
    "Saver",
    "Shards",
    "Team",
    "claim_together",
    "done_already",
    "plan_digest",
    "team_of",
    "too_late",
]
