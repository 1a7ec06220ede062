"""A server of processes and a cache, shared by all tests of this folder."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mig_command import Done, Server

Mig = Callable[..., Done]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MIG_JAX_CACHE of this session, of both of its workers."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "mig_jax_cache"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[Server]:
    """Starts the command."""
    made = Server(tmp_path_factory.mktemp("server"), cache)
    yield made
    made.close()


@pytest.fixture
def mig(server: Server, tmp_path: Path) -> Mig:
    """``mig("select", ...)``: the command in ``tmp_path``, to its end."""
    return lambda *arguments, **env: server.run([str(a) for a in arguments], tmp_path, **env)
