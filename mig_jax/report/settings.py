"""In which settings runs differ, and the name of each run by them."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mig_jax.report.run_view import RunView

# What decides nothing about the rows, or follows from another setting.
UNSWEPT = ("out", "overwrite", "cache", "pool.n", "pool.note", "mesh.", "engine.", "embedder.threshold")
OWN, NAME = "sampler.", "sampler.name"  # settings that each system has of its own; which it is


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as ``{"graph.threshold": 0.9}``."""
    out: dict[str, Any] = {}
    for key, value in config.items():
        out |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return out


def plain(value: Any) -> str:
    """A setting's value as one types it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else "null" if value is None else str(value)


def swept(configs: Sequence[Mapping[str, Any]], first: str | None = None) -> tuple[str, ...]:
    """The settings in which flat configurations differ, ``first`` first where any has it.

    A system's own settings are compared only with those of the same system. Of settings that divide the runs in the
    same way, the first is enough.
    """
    systems = [repr(config.get(NAME)) for config in configs]
    names = dict.fromkeys(name for config in configs for name in config if not name.startswith(UNSWEPT))
    divisions: dict[tuple[int, ...], str] = {}
    for name in sorted(names, key=lambda name: name != first):  # stable
        values = [repr(config.get(name)) for config in configs]
        groups = set(systems) if name.startswith(OWN) and name != NAME else {None}
        if name == first or any(_several(values, systems, one) for one in groups):
            divisions.setdefault(tuple(values.index(value) for value in values), name)
    return tuple(divisions.values())


def differing(runs: Sequence[RunView], first: str | None = None) -> list[dict[str, str]]:
    """Of each run the settings in which runs differ, but for the system itself."""
    configs = [flat(run.manifest.config) for run in runs]
    names = [name for name in swept(configs, first) if name not in (NAME, "sampler")]
    return [{name: plain(config[name]) for name in names if name in config} for config in configs]


def _several(values: Sequence[str], systems: Sequence[str], one: str | None) -> bool:
    """Whether the runs of one system (None: all runs) have several of these values."""
    return len({value for value, system in zip(values, systems, strict=True) if one in (None, system)}) > 1


def names(runs: Sequence[RunView], settings: Sequence[Mapping[str, str]]) -> list[str]:
    """A short name for each run, all different: its system, with settings where several runs have the same system."""
    systems = [run.system or run.name for run in runs]
    varied = {
        one: [key for key in dict.fromkeys(key for of in settings for key in of)
              if _several([str(of.get(key)) for of in settings], systems, one)]
        for one in set(systems)
    }  # fmt: skip
    short = [
        " ".join([system, *(f"{key.rpartition('.')[2]}={of[key]}" for key in varied[system] if key in of)])
        for system, of in zip(systems, settings, strict=True)
    ]
    short = _distinct(short, lambda at: runs[at].name)
    return _distinct(short, lambda at: os.path.relpath(runs[at].folder))


def _distinct(texts: Sequence[str], more: Callable[[int], str]) -> list[str]:
    """Texts that occur more than once, with ``more`` after each."""
    return [text if texts.count(text) == 1 else f"{text} ({more(at)})" for at, text in enumerate(texts)]
