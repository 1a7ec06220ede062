"""Hydra composes the settings of a command once."""

import pytest
from hydra._internal.hydra import Hydra

from mig_jax.cli import hydra_app
from mig_jax.commands.registry import COMMANDS


@pytest.mark.parametrize(
    ("arguments", "times"), [([], 1), (["seed=3"], 1), (["hydra.mode=RUN"], 2), (["-m", "seed=3,4"], 2)]
)
def test_compositions(monkeypatch, tmp_path, arguments, times):
    compose, get_mode, calls = Hydra.compose_config, Hydra.get_mode, []
    monkeypatch.setattr("sys.argv", [])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hydra_app, "job", lambda name, raw: None)
    monkeypatch.setattr(Hydra, "compose_config", lambda *args, **options: calls.append(1) or compose(*args, **options))
    hydra_app.hydra_app(COMMANDS["select"], [*arguments, "out=runs"])
    assert len(calls) == times
    assert Hydra.get_mode is get_mode
