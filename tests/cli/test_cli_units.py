"""The parts that the command stands on: quoting, messages, the array cache, the checkpoint's bytes."""

from pathlib import Path

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from mig_jax.cli.arguments import is_override, prepare, quoted
from mig_jax.cli.sweep import Sweep
from mig_jax.cli.sweep_folder import read_notes
from mig_jax.commands.registry import COMMANDS
from mig_jax.config.compose import composed
from mig_jax.core.cache import ArrayCache
from mig_jax.core.errors import UserError

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
HARD = st.text("\\'\"${}[](),=:~#&% \tab\n", max_size=12)


@settings(max_examples=150, deadline=None)
@given(TEXT | HARD)
def test_a_quoted_text_means_itself(text: str) -> None:
    """To Hydra's grammar, and then to OmegaConf, which looks for interpolations in what Hydra gives it."""
    override = OverridesParser.create().parse_override(f"out={quoted(text)}")
    assert not override.is_sweep_override()
    assert OmegaConf.to_container(OmegaConf.create({"out": override.value()}), resolve=True) == {"out": text}


@settings(max_examples=100, deadline=None)
@given(HARD.filter(lambda text: text.strip() and not text.startswith("-") and "=" not in text and text[0] not in "~"))
def test_any_name_can_be_the_pool(text: str) -> None:
    (override,) = prepare([text])
    parsed = OverridesParser.create().parse_override(override)
    assert parsed.key_or_group == "pool.path"
    assert OmegaConf.to_container(OmegaConf.create({"p": parsed.value()}), resolve=True) == {"p": text}


def test_prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "n=5").touch()
    (tmp_path / "[x].jsonl").touch()
    for given_, made in {
        ("pool.jsonl", "n=3"): ["pool.path='pool.jsonl'", "n=3"],
        ("n=3", "pool.jsonl"): ["pool.path='pool.jsonl'", "n=3"],
        ("n=5",): ["pool.path='n=5'"],  # such a file exists
        ("out=runs/a b",): ["out='runs/a b'"],
        ("out=2024",): ["out='2024'"],
        ("out=1e5",): ["out='1e5'"],
        ("out=true",): ["out='true'"],
        ("cache=null",): ["cache=null"],
        ("out='a b'",): ["out='a b'"],
        ("out=runs/${n}",): ["out=runs/${n}"],
        ("pool.path=[a,b]",): ["pool.path=[a,b]"],
        ("pool.path=[x].jsonl",): ["pool.path='[x].jsonl'"],  # such a file exists
        ("pool.fields.tags=a.b",): ["++pool.fields.tags=a.b"],
        ("-m", "n=1,2", "hydra.sweep.subdir=x"): ["n=1,2", "hydra.sweep.subdir=x", "-m"],
        ("p.jsonl", "--cfg", "job", "n=1"): ["pool.path='p.jsonl'", "n=1", "--cfg", "job"],
        ("--info", "searchpath"): ["--info", "searchpath"],
        ("~n", "+x=1"): ["~n", "+x=1"],
    }.items():
        assert prepare(list(given_)) == made
    for wrong in (["a", "b"], ["--nope"]):
        with pytest.raises(UserError):
            prepare(wrong)
    assert not is_override("plain") and is_override("a.b=1") and is_override("~a")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("Traceback is the user's word"), 2),
        (OSError(28, "No space left on device"), 2),
        (RuntimeError("a fault"), 1),
    ],
)
def test_the_exit_code_of_a_sweep_is_that_of_its_errors(tmp_path: Path, error: Exception, code: int) -> None:
    sweep = Sweep()
    sweep.folder = sweep.notes = tmp_path
    config = DictConfig({"hydra": {"mode": RunMode.MULTIRUN, "sweep": {"subdir": "0"}, "job": {"num": 0}}})
    done = JobReturn(status=JobStatus.FAILED)
    done.return_value = error
    sweep.on_job_end(config, done)
    assert [note.crashed for note in read_notes(tmp_path)] == [code == 1]
    with pytest.raises(SystemExit) as ended:
        sweep.on_multirun_end(config)
    assert ended.value.code == code


def plain_config() -> dict:
    """A configuration that is right."""
    return OmegaConf.to_container(composed("select"), resolve=True)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"n": "x"}, "n=x: must be a whole number >= 1, or a list of such numbers"),
        ({"n": [1, None]}, "n=[1, None]: must be a whole number >= 1, or a list of such numbers"),
        ({"n": True}, "n=true: must be a whole number >= 1, or a list of such numbers"),
        ({"seed": 1.5}, "seed=1.5: must be a whole number"),
        ({"out": 3}, "out=3: must be a text"),
        ({"overwrite": "x"}, "overwrite=x: must be true or false"),
        ({"cache": 3}, "cache=3: must be a text or null"),
        ({"mesh": {"rows": 0}}, "mesh.rows=0: must be all or a whole number >= 1"),
        ({"mesh": {"process": -1}}, "mesh.process=-1: must be a whole number >= 0 or null"),
        ({"pool": {"fields": {"tags": 3}}}, "pool.fields={'tags': 3}: must be a mapping, as {name: value}"),
        ({"pool": {"path": ["a", 3]}}, "pool.path=['a', 3]: must be a text or a list"),
        ({"pool": {"n": 0}}, "pool.n=0: must be a whole number >= 1 or null"),
        ({"graph": {"degree": None}}, "graph.degree=null: must be a number >= 0"),
        ({"sampler": {"gain": "exat"}}, "sampler.gain=exat: must be one of first_order, exact; did you mean exact?"),
        ({"sampler": {"gian": 1}}, "sampler.gian: no such key; did you mean sampler.gain? (mig-jax select --help"),
        ({"score": 3}, "score=3: must be a group of keys (from, turns, normalize)"),
    ],
)
def test_messages_name_key_value_and_what_is_allowed(change: dict, told: str) -> None:
    config = plain_config()
    for key, value in change.items():
        config[key] = config[key] | value if isinstance(value, dict) else value
    with pytest.raises(UserError) as error:
        COMMANDS["select"].check(config)
    assert str(error.value).startswith(told)


def test_every_key_of_the_configuration_is_checked() -> None:
    """An unfit value at any place is met with that place's name."""
    config = plain_config()
    for group, part in [("", config), *((k, v) for k, v in config.items() if isinstance(v, dict))]:
        for key, value in part.items():
            if isinstance(value, dict):
                continue
            name = f"{group}.{key}" if group else key
            part[key] = {"un": "fit"}
            with pytest.raises(UserError, match=rf"^{name}=.*: must be "):
                COMMANDS["select"].check(config)
            part[key] = value


def test_array_cache(tmp_path: Path) -> None:
    made = []

    def make() -> dict[str, np.ndarray]:
        made.append(1)
        return {"a": np.arange(6).reshape(2, 3), "b": np.array([1.5])}

    cache = ArrayCache(tmp_path / "cache")
    for found in (False, True):
        arrays, cached = cache.get("kind", ["key", 1], make)
        assert cached == found and np.array_equal(arrays["a"], np.arange(6).reshape(2, 3))
    assert len(made) == 1 and not cache.get("kind", ["key", 2], make)[1]
    (entry, other) = sorted((tmp_path / "cache" / "kind").iterdir())
    whole = entry.read_bytes()
    for damage in (b"", b"PK", whole[:-30], whole[:60] + b"\xff" * 20 + whole[80:], b"no archive at all"):
        entry.write_bytes(damage)
        other.write_bytes(damage)
        for key in (["key", 1], ["key", 2]):
            assert not cache.get("kind", key, make)[1], damage
            assert cache.get("kind", key, make)[1], damage
    assert all(path.suffix == ".npz" for path in (tmp_path / "cache" / "kind").iterdir())
    assert ArrayCache(None).get("kind", ["key", 1], make)[1] is False


def test_array_cache_that_cannot_be_written(tmp_path: Path) -> None:
    """A file where the folder should be stands for a read-only disk, which root could write to all the same."""
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", Path("/proc/none")):
        arrays, cached = ArrayCache(folder).get("kind", 1, lambda: {"a": np.ones(2)})
        assert not cached and arrays["a"].tolist() == [1, 1]
