"""A run whose label embeddings are in the cache needs neither Flax nor the weights: that is seconds of its start."""

import json
import subprocess
import sys
from pathlib import Path

import cli_pools
import pytest
from conftest import Mig
from mig_command import environment

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.checkpoint import MINILM, find_checkpoint

CODE = """
import json, sys
import safetensors
safetensors.safe_open = None  # compiled code: what it opens is no audit event
opened = set()
sys.addaudithook(lambda event, args: opened.add(str(args[0])) if event == "open" else None)
from mig_jax.cli.main import main
main(["select", "pool.jsonl", "n=3", "out=again"])
print(json.dumps({"flax": "flax" in sys.modules, "weights": [path for path in opened if ".safetensors" in path]}))
"""


def test_cached_label_embeddings_need_no_flax_and_no_weights(mig: Mig, cache: Path, tmp_path: Path) -> None:
    try:
        find_checkpoint(MINILM)
    except UserError as error:
        pytest.skip(f"MiniLM's weights are not on this machine: {error}")
    cli_pools.good(tmp_path / "pool.jsonl")
    assert mig("select", "pool.jsonl", "n=3", "out=first").code == 0
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=tmp_path, env=environment(cache), capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == {"flax": False, "weights": []}
