"""Every code block of the documents runs, in the order of its page, in a folder with the files that the pages name.

A block that cannot run is marked in the source of its page, with the reason: ``<!-- not run: REASON -->``. The commands
of such a block are checked by tests/test_docs.py, as all others.
"""

import os
import re
import shlex
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.checkpoint import MINILM, SMOLLM2_135M, find_checkpoint
from tests.pages import PAGES, PROGRAMS, Block, blocks, make_files

sys.path.insert(0, str(Path(__file__).parent / "cli"))  # mig_command, as the tests of the command import it
from tests.cli.conftest import cache, server  # noqa: F401  (fixtures)


def weights_missing() -> str | None:
    for spec in (MINILM, SMOLLM2_135M):
        try:
            find_checkpoint(spec)
        except UserError as error:
            return str(error)
    return None


CASES = [
    pytest.param(page, slow, id=f"{page}{'-slow' if slow else ''}", marks=[pytest.mark.slow] if slow else [])
    for page in PAGES
    for slow in (False, True)
    if any((block.mark == "slow") == slow and block.mark != "not run" for block in blocks(page))
]


@pytest.fixture(scope="module")
def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        return listening.getsockname()[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[Path]:  # noqa: F811
    """Where a page runs."""
    if reason := weights_missing():
        pytest.skip(f"weights are not on this machine: {reason}")
    make_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIG_JAX_CACHE", str(cache))
    yield tmp_path


@pytest.mark.parametrize(("page", "slow"), CASES)
def test_every_block_of_a_page_runs(page: str, slow: bool, folder: Path, server: Any, free_port: int):  # noqa: F811
    names: dict[str, Any] = {}
    for block in blocks(page):
        if block.mark == "not run" or (block.mark == "slow") != slow:
            continue
        if block.language == "python":
            exec(compile(block.code, f"{page}:{block.line}", "exec"), names)
        else:
            run_commands(block, folder, server, free_port)


def run_commands(block: Block, folder: Path, processes: Any, port: int) -> None:
    """The lines of a block; one that ends in & runs beside the next ones."""
    beside = []
    for line in block.commands:
        words = shlex.split(line.replace("localhost:7777", f"localhost:{port}"), comments=True)
        assert words[0] in PROGRAMS, f"{block.page}:{block.line}: {line}"
        job = processes.start([word for word in words[1:] if word != "&"], folder, program=words[0])
        if words[-1] == "&":
            beside.append((line, job))
            continue
        done = job.wait()
        assert done.code == 0, (block.page, line, done)
    for line, job in beside:
        done = job.wait()
        assert done.code == 0, (block.page, line, done)


def test_what_is_not_run_has_a_reason():
    marked = [block for page in PAGES for block in blocks(page) if block.mark]
    assert marked and all(block.reason and len(block.reason) > 10 for block in marked)


def test_no_block_of_a_page_is_missed():
    for page in PAGES:
        text = (Path(__file__).resolve().parents[1] / page).read_text(encoding="utf-8")
        assert len(re.findall(r"^```", text, re.M)) == 2 * len(blocks(page)), page
    assert sum(len(blocks(page)) for page in PAGES) > 30


def test_the_environment_of_the_pages_is_their_own(folder: Path):
    assert Path.cwd() == folder and os.environ["MIG_JAX_CACHE"].endswith("mig_jax_cache")
