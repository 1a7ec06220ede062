"""Every yaml under conf/ composes and passes the checks that a run makes."""

import importlib.resources
from pathlib import Path

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.utils import instantiate
from omegaconf import OmegaConf

import mig_jax.config.compose  # noqa: F401  (the resolvers)
from mig_jax.cli.sweep import Sweep
from mig_jax.commands.registry import COMMANDS, compose
from mig_jax.models.checkpoints.architectures import ARCHITECTURES
from mig_jax.models.configured import model_spec_of, spec_of

CONF = Path(str(importlib.resources.files("mig_jax.conf")))
PARTS = {f"{name}.yaml" for name in ("annotate", "base", "embed", "generate", "plan", "report", "select", "vocabulary")}
COMMAND = {"model": "generate", "tags": "annotate", "ifd": "annotate"}  # group -> whose it is; any other is of select
OPTIONS = sorted(file.relative_to(CONF).with_suffix("").parts for file in CONF.glob("*/*.yaml"))
CHOICES = [(group, name) for group, name in OPTIONS if group != "experiment" and not name.startswith("_")]
EXPERIMENTS = [name for group, name in OPTIONS if group == "experiment"]


def composed(*overrides: str, hydra: bool = False, command: str = "select"):
    """The configuration, with "x" for what a user must give."""
    with initialize_config_module("mig_jax.conf", version_base="1.3"):
        missing = OmegaConf.missing_keys(hydra_compose(command, overrides=list(overrides)))
        given = [*overrides, *(f"{key}=x" for key in sorted(missing))]
        return hydra_compose(command, overrides=given, return_hydra_config=hydra)


def test_this_file_meets_every_yaml():
    found = {file.relative_to(CONF).as_posix() for file in CONF.rglob("*.yaml")}
    assert found == PARTS | {"/".join(parts) + ".yaml" for parts in OPTIONS}


def test_the_defaults_are_a_configuration():
    assert compose("select").budgets == (50,)
    assert compose("embed").embed.target == "rows"
    assert compose("annotate").annotators == ("tags", "tokens")
    assert compose("generate").model.name == "smollm2_135m"
    assert compose("report").runs == ()
    assert compose("vocabulary").vocabulary.min_count == 2


@pytest.mark.parametrize(
    ("group", "name"), [parts for parts in OPTIONS if parts[0] != "experiment" and parts[1][0] != "_"]
)
def test_every_option_of_every_group(group: str, name: str):
    command = COMMAND.get(group, "select")
    config = COMMANDS[command].check(composed(f"{group}={name}", command=command))
    assert isinstance(config, COMMANDS[command].struct)
    part = getattr(config, group)
    if group in ("model", "embedder") and part.path != "x":  # the checks that loading makes before it looks for weights
        spec = (model_spec_of if group == "model" else spec_of)(part)
        assert spec.architecture is None or spec.architecture in ARCHITECTURES
    # An option that is never reached would leave the default's name standing.
    assert name == (part.kind if group == "phi" else part.name)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment(name: str):
    compose("select", [f"+experiment={name}"])
    raw = composed(f"+experiment={name}", "hydra.job.num=0", "hydra.mode=MULTIRUN", hydra=True)
    sweeper = Plugins.instance()._instantiate(raw.hydra.sweeper)
    assert isinstance(sweeper, Sweeper)
    params = OmegaConf.to_container(raw.hydra.sweeper.params)
    assert params, "an experiment sweeps something"
    callback = instantiate(raw.hydra.callbacks.sweep)
    assert isinstance(callback, Sweep)
    assert callback.key is not None
    key = callback.key.removesuffix(".name")  # of a group, its option
    assert key in params
    values = [[value.strip() for value in str(swept).split(",")] for swept in params.values()]
    at = list(params).index(key)
    assert callback.reference is None or str(callback.reference) in map(str, map(_plain, values[at]))
    for value in values[at]:  # each setting is a configuration of its own, with its own folder
        job = composed(f"+experiment={name}", f"{key}={value}", "hydra.job.num=0", "hydra.mode=MULTIRUN", hydra=True)
        assert str(_plain(value)) in job.hydra.sweep.subdir
        if callback.paper:
            assert _plain(value) in callback.paper


def _plain(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_says_what_it_is(name: str):
    head = (CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8").split("\n\n")[0]
    for word in (f"+experiment={name}", "# Shows", "# Expected", "# Takes", "# Hardware"):
        assert word in head
