"""What a run writes: files for trainers, the trace of the picks, the manifest; all at once or not at all."""

from mig_jax.export.convert import LAYOUTS, check_layout
from mig_jax.export.manifest import MANIFEST, REPORT, read_manifest
from mig_jax.export.run_files import RunFacts, RunnersUp, write_run
from mig_jax.export.staging import Claim, claim, claim_file

__all__ = [
    "LAYOUTS",
    "MANIFEST",
    "REPORT",
    "Claim",
    "RunFacts",
    "RunnersUp",
    "check_layout",
    "claim",
    "claim_file",
    "read_manifest",
    "write_run",
]
