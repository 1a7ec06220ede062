"""What people type, made fit for Hydra: a pool as a plain path, paths quoted, sweeps named by what they sweep."""

import re
from pathlib import Path

KEY = re.compile(r"^[+~]*[A-Za-z_][\w./@]*(=|$)")
PATHS = ("pool.path", "pool.valid_tags", "out", "graph.path", "embedder.path", "cache")
SPECIAL = set("=(){}[]~&:;, '\"\\%!?*#$")


def prepare(arguments: list[str]) -> list[str]:
    """Hydra's arguments from the command's.

    The first argument that is no override is the pool. Values of the keys that hold paths are quoted where Hydra's
    grammar would choke on them; lists, sweeps and what is quoted already stay as they are.
    """
    sweeping = "-m" in arguments or "--multirun" in arguments
    out, pool_seen = [], False
    for argument in arguments:
        if argument.startswith("-"):
            out.append(argument)
        elif not pool_seen and not is_override(argument):
            pool_seen = True
            out.append(f"pool.path={quoted(argument)}")
        else:
            key, equals, value = argument.partition("=")
            if equals and key in PATHS and _needs_quotes(value, sweeping):
                value = quoted(value)
            out.append(f"{key}{equals}{value}")
    if sweeping and not any(argument.startswith("hydra.sweep.subdir=") for argument in out):
        name = _sweep_name(out)
        if name:
            out.append(f"hydra.sweep.subdir='{name}'")
    return out


def is_override(argument: str) -> bool:
    """Whether it reads key=value (or ~key), and no such file exists."""
    match = KEY.match(argument)
    if Path(argument).exists():
        return False
    return bool(match) and ("=" in argument or argument.startswith("~"))


def quoted(value: str) -> str:
    """A single-quoted string of Hydra's grammar that means exactly ``value``."""
    escaped = re.sub(r"(\\*)'", lambda m: m.group(1) * 2 + "\\'", value)
    escaped = re.sub(r"(\\+)$", lambda m: m.group(1) * 2, escaped)
    escaped = escaped.replace("${", "\\${")
    return f"'{escaped}'"


def _needs_quotes(value: str, sweeping: bool) -> bool:
    if not value or value[0] in "'\"[" or value.startswith("${"):
        return False
    return bool(set(value) & (SPECIAL - {","} if sweeping else SPECIAL))


def _sweep_name(arguments: list[str]) -> str:
    """``3-graph.threshold=0.9``: the job's number and what the command line sweeps; "" where it sweeps nothing."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parts = []
    for argument in arguments:
        if argument.startswith("-"):
            continue
        try:
            override = OverridesParser.create().parse_override(argument)
        except HydraException:
            return ""
        if override.is_sweep_override():
            key = override.key_or_group
            group = key in ("sampler", "phi", "embedder", "pool") or override.package is not None
            parts.append(f"{key}=${{hydra:runtime.choices.{key}}}" if group else f"{key}=${{{key}}}")
    return "${hydra:job.num}-" + ",".join(parts) if parts else ""
