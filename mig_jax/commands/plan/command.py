"""``mig-jax plan`` for the registry: make the plan, write its numbers, return the table."""

import json
from pathlib import Path

from mig_jax.commands.call import Call
from mig_jax.commands.plan.config import PlanConfig
from mig_jax.commands.plan.run import run_plan
from mig_jax.commands.plan.show import as_json, text
from mig_jax.core.errors import UserError
from mig_jax.core.files import write_atomic


def run(config: PlanConfig, call: Call) -> str:
    """The plan as a table; its numbers go to ``plan.out``."""
    out = None if config.plan.out is None else _json_file(config.plan.out)
    plan = run_plan(config, config.plan, progress=call.progress)
    if out is not None:
        write_atomic(out, json.dumps(as_json(plan), indent=1) + "\n")
    return text(plan)


def _json_file(name: str) -> Path:
    """Where the numbers go; refused before anything is measured."""
    path = Path(name).expanduser()
    folder = path.absolute().parent
    if path.suffix != ".json":
        raise UserError(key="plan.out", value=name, allowed="a file that ends in .json")
    if path.is_dir() or not folder.is_dir():
        message = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise UserError(message, key="plan.out", value=name)
    return path
