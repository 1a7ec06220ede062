"""The keys of a command as its YAML declares them, whichever options of its groups are chosen."""

import importlib.resources
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from omegaconf import OmegaConf

CONF = "mig_jax.conf"


@cache
def keys_of(command: str) -> tuple[str, ...]:
    """Every key of ``mig-jax COMMAND``, parts included ("graph", "graph.degree"), in the order of the files."""
    return tuple(dict.fromkeys(_keys(command, "")))


@cache
def groups_of(command: str) -> dict[str, tuple[str, ...]]:
    """Group -> the prefixes of its keys: ``{"pool": ("pool",), "model": ("ifd.model", "car.model"), ...}``."""
    found: dict[str, dict[str, None]] = {}
    for group, prefix in _all_groups(command, ""):
        found.setdefault(group, {})[prefix] = None
    return {group: tuple(prefixes) for group, prefixes in found.items()}


def options_of(group: str) -> tuple[str, ...]:
    """The options of a group: the files of its folder, without those that exist only to be inherited (``_base``)."""
    folder = importlib.resources.files(CONF) / group
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return tuple(sorted(name[:-5] for name in names if name.endswith(".yaml") and not name.startswith("_")))


def options_with(group: str, key: str) -> list[str]:
    """The options of a group that have a key."""
    return [name for name in options_of(group) if key in _keys(f"{group}/{name}", "")]


def inherited(name: str) -> list[str]:
    """The files whose settings conf/NAME.yaml takes over."""
    folder = f"{name.rpartition('/')[0]}/".lstrip("/")
    return [folder + entry for entry in read(name).get("defaults", ()) if isinstance(entry, str) and entry != "_self_"]


@cache
def read(name: str) -> Mapping[str, Any]:
    """conf/NAME.yaml as it is written: interpolations are not resolved."""
    text = importlib.resources.files(CONF).joinpath(*f"{name}.yaml".split("/")).read_text(encoding="utf-8")
    return OmegaConf.to_container(OmegaConf.create(text)) or {}  # type: ignore[return-value]


def _keys(name: str, prefix: str) -> Iterator[str]:
    """The keys of one file, and of all that its defaults list names."""
    settings = read(name)
    for other in inherited(name):
        yield from _keys(other, prefix)
    for group, place in _groups(settings, prefix):
        yield place
        for option in options_of(group):
            yield from _keys(f"{group}/{option}", f"{place}.")
    yield from _flat({key: value for key, value in settings.items() if key not in ("defaults", "hydra")}, prefix)


def _all_groups(name: str, prefix: str) -> Iterator[tuple[str, str]]:
    settings = read(name)
    for other in inherited(name):
        yield from _all_groups(other, prefix)
    for group, place in _groups(settings, prefix):
        yield group, place
        for option in options_of(group):
            yield from _all_groups(f"{group}/{option}", f"{place}.")


def _groups(settings: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    """(group, prefix of its keys) of a defaults list: ``pool: demo``, ``model@ifd.model: checkpoint``."""
    for entry in settings.get("defaults", ()):
        for name in entry if isinstance(entry, dict) else ():
            group, _, place = name.removeprefix("/").partition("@")
            if not group.startswith("override "):
                yield group, prefix + (place or group)


def _flat(settings: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, value in settings.items():
        yield prefix + str(key)
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
