"""What people type, made fit for Hydra: a pool as a plain path, paths quoted, sweeps named by what they sweep."""

import re
from pathlib import Path

from mig_jax.core.errors import UserError
from mig_jax.core.text import did_you_mean

KEY = re.compile(r"^[+~]*[A-Za-z_][\w./@]*(=|$)")
PATHS = (
    "pool.path", "pool.valid_tags", "out", "graph.path", "embedder.path", "model.path", "prompts", "cache", "plan.out",
    "embeddings.path", "limits.warm_start", "limits.include", "limits.exclude",
    "tags.model.path", "deita.complexity.path", "deita.quality.path", "ifd.model.path", "car.model.path",
    "tokens.model.path",
)  # fmt: skip
TEXTS = (  # what holds any characters
    *PATHS, "embedder.prompt", "embedder.instruction", "tags.prompt", "vocabulary.keep", "prompt", "generate.system",
)  # fmt: skip
OF_GENERATE = ("model", "prompt", "prompts", "out", "overwrite", "seed", "generate", "mesh", "cache", "hydra")
SPECIAL = set("=(){}[]~&:;, '\"\\%!?*#$")
NO_TEXT = re.compile(
    r"[+-]?(\d[\d_]*\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf|nan|true|false", re.I
)  # Hydra would not read a name
OPEN = ("pool.fields", "limits.sources", "limits.labels")  # mappings whose keys are the user's to add
# Hydra's own flags, and those that take the next argument.
FLAGS = [
    "-h",
    "--help",
    "--hydra-help",
    "--version",
    "--resolve",
    "--run",
    "-r",
    "--multirun",
    "-m",
    "--shell-completion",
    "-sc",
    "--info",
    "-i",
]
WITH_VALUE = [
    "--cfg",
    "-c",
    "--package",
    "-p",
    "--config-path",
    "-cp",
    "--config-name",
    "-cn",
    "--config-dir",
    "-cd",
    "--experimental-rerun",
]
INFOS = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


def prepare(arguments: list[str], command: str = "select") -> list[str]:
    """Hydra's arguments from the command's.

    The first argument that is no override is the pool; of ``generate``, the prompt or the file of prompts; of
    ``report`` all such arguments are runs. Values of the keys that hold paths or texts are quoted where Hydra's grammar
    would choke on them; lists, sweeps and what is quoted already stay as they are.

    Raises:
      UserError: a flag that is not known; a second argument that is no override.
    """
    sweeping = "-m" in arguments or "--multirun" in arguments
    out, flags, pool, before = [], [], None, ""
    runs: list[str] = []
    for argument in arguments:
        if before in WITH_VALUE or (before in ("--info", "-i") and argument in INFOS):
            flags.append(argument)
        elif argument.startswith("-") and not _is_text(argument, command):
            _check_flag(argument, command)
            flags.append(argument)
        elif _is_text(argument, command) or not is_override(argument):
            if command == "report":
                runs.append(quoted(argument))
                before = argument
                continue
            key = _first_key(argument, command)
            if pool is not None:
                what, several = "pool", "several files: pool.path=[a,b]"
                if command == "generate":
                    what, several = "prompt", "several prompts: a file of them"
                raise UserError(f"{argument}: neither key=value nor the {what}, which is {pool}; {several}")
            pool = argument
            out.append(f"{key}={quoted(argument)}")
        else:
            key, equals, value = argument.partition("=")
            if equals and key in TEXTS and _needs_quotes(value, sweeping):
                value = quoted(value)
            if equals and any(key == mapping or key.startswith(f"{mapping}.") for mapping in OPEN):
                key = f"++{key}"
            out.append(f"{key}{equals}{value}")
        before = argument
    if runs and any(argument.startswith("runs=") for argument in out):
        raise UserError(f"runs= and {runs[0]}: name the runs in one way, as arguments or as runs=[a,b]")
    if runs:
        out.append(f"runs=[{','.join(runs)}]")
    if sweeping and not any(argument.startswith("hydra.sweep.subdir=") for argument in out):
        name = _sweep_name(out)
        if name:
            out.append(f"hydra.sweep.subdir='{name}'")
    return out + flags  # argparse reads the overrides in one stretch


def _first_key(argument: str, command: str) -> str:
    """What an argument without a key is; a prompt that is a file, or looks like one, is a file of prompts."""
    if command != "generate":
        return "pool.path"
    like_one = len(argument.split()) == 1 and argument.endswith((".txt", ".jsonl"))
    return "prompts" if like_one or _exists(argument) else "prompt"


def _is_text(argument: str, command: str) -> bool:
    """Whether it is a prompt whatever it begins with: "x = 3: what is x?", "- a list"."""
    key = re.split(r"[.@=]", argument.lstrip("+~"), maxsplit=1)[0]
    return command == "generate" and len(argument.split()) > 1 and key not in OF_GENERATE


def is_override(argument: str) -> bool:
    """Whether it reads key=value (or ~key), and no such file exists."""
    match = KEY.match(argument)
    return bool(match) and ("=" in argument or argument.startswith("~")) and not _exists(argument)


def _exists(argument: str) -> bool:
    """Whether it is the path of something; a text that no path can be is none."""
    try:
        return Path(argument).exists()
    except (OSError, ValueError):
        return False


def quoted(value: str) -> str:
    """A single-quoted string of Hydra's grammar that means exactly ``value``."""
    escaped = re.sub(r"(\\*)\$\{", lambda m: m.group(1) * 2 + "\\${", value)  # for OmegaConf, which reads it last
    escaped = re.sub(r"(\\*)'", lambda m: m.group(1) * 2 + "\\'", escaped)
    escaped = re.sub(r"(\\+)\Z", lambda m: m.group(1) * 2, escaped)
    return f"'{escaped}'"


def _check_flag(argument: str, command: str) -> None:
    name = argument.partition("=")[0]
    if name not in FLAGS and name not in WITH_VALUE:
        hint = did_you_mean(name, [flag for flag in FLAGS + WITH_VALUE if flag.startswith("--")])
        what = "run" if command == "report" else "pool"
        named = (
            f"a prompt is prompt='{argument}'" if command == "generate" else f"a {what} of that name is ./{argument}"
        )
        raise UserError(f"{argument}: no such flag{hint}; settings are key=value, and {named}")


def _needs_quotes(value: str, sweeping: bool) -> bool:
    special = bool(set(value) & (SPECIAL - {","} if sweeping else SPECIAL))
    if special and _exists(value):
        return True
    if not value or value[0] in "'\"[" or "${" in value:
        return False
    return special or bool(NO_TEXT.fullmatch(value))


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
            parts.append(f"{key}=${{hydra:runtime.choices.{key}}}" if group else f"{key}=${{slug:${{{key}}}}}")
    return "${hydra:job.num}-" + ",".join(parts) if parts else ""
