"""Arguments as users write them become Hydra's: a pool as a plain path, paths quoted, sweeps named by their keys."""

import re
from pathlib import Path

from mig_jax.commands.registry import COMMANDS, Command, Positional
from mig_jax.config.keys import groups_of, keys_of
from mig_jax.core.errors import UserError
from mig_jax.core.text import did_you_mean

KEY = re.compile(r"^[+~]*[A-Za-z_][\w./@]*(=|$)")
SPECIAL = set("=(){}[]~&:;, '\"\\%!?*#$")
NO_TEXT = re.compile(
    r"[+-]?(\d[\d_]*\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf|nan|true|false", re.I
)  # Hydra would not read a name
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


def prepare(arguments: list[str], name: str = "select") -> list[str]:
    """Hydra's arguments from the command's.

    An argument that is no override is the command's positional one (``Command.positional``). Values of the keys that
    hold paths or texts are quoted where Hydra's grammar could not read them; lists, sweeps and what is quoted already
    stay as they are.

    Raises:
      UserError: a flag that is not known; more arguments without a key than the command takes.
    """
    command = COMMANDS[name]
    sweeping = "-m" in arguments or "--multirun" in arguments
    overrides, flags, positional, before = [], [], [], ""
    for argument in arguments:
        if before in WITH_VALUE or (before in ("--info", "-i") and argument in INFOS):
            flags.append(argument)
        elif argument.startswith("-") and not _is_text(argument, command):
            _check_flag(argument, command)
            flags.append(argument)
        elif _is_text(argument, command) or not is_override(argument):
            positional.append(argument)
        else:
            overrides.append(_prepared(argument, command, sweeping))
        before = argument
    overrides = _positional(positional, overrides, command) + overrides
    if sweeping and not any(override.startswith("hydra.sweep.subdir=") for override in overrides):
        folder = _sweep_name(overrides, command)
        if folder:
            overrides.append(f"hydra.sweep.subdir='{folder}'")
    return overrides + flags  # argparse reads the overrides in one stretch


def _prepared(override: str, command: Command, sweeping: bool) -> str:
    """An override with its value quoted where needed, and Hydra's ``++`` where the user adds names to a mapping."""
    key, equals, value = override.partition("=")
    # Which keys hold texts is read from all files of conf/: only where the value needs quotes.
    if equals and _needs_quotes(value, sweeping) and key in command.quoted:
        value = quoted(value)
    if equals and any(key == mapping or key.startswith(f"{mapping}.") for mapping in command.mappings):
        key = f"++{key}"
    return f"{key}{equals}{value}"


def _positional(arguments: list[str], overrides: list[str], command: Command) -> list[str]:
    """The overrides that the arguments without a key stand for."""
    kind = command.positional
    if not arguments:
        return []
    if not kind.several:
        if any(override.startswith(f"{kind.key}=") for override in overrides):
            message = f"name the {kind.noun}s in one way, as arguments or as {kind.key}=[a,b]"
            raise UserError(f"{kind.key}= and {quoted(arguments[0])}: {message}")
        return [f"{kind.key}=[{','.join(map(quoted, arguments))}]"]
    if len(arguments) > 1:
        message = f"neither key=value nor the {kind.noun}, which is {arguments[0]}; {kind.several}"
        raise UserError(message, key=arguments[1])
    return [f"{_file_or_text(arguments[0], kind)}={quoted(arguments[0])}"]


def _file_or_text(argument: str, kind: Positional) -> str:
    """The key of an argument: ``file_key`` where it is an existing file or is named like one."""
    if kind.file_key is None:
        return kind.key
    named_like_one = len(argument.split()) == 1 and argument.endswith((".txt", ".jsonl"))
    return kind.file_key if named_like_one or _exists(argument) else kind.key


def _is_text(argument: str, command: Command) -> bool:
    """Whether it is a prompt whatever it begins with: "x = 3: what is x?", "- a list"."""
    first = re.split(r"[.@=]", argument.lstrip("+~"), maxsplit=1)[0]
    own = {*(key.partition(".")[0] for key in keys_of(command.name)), "hydra"} if command.positional.text else ()
    return command.positional.text and len(argument.split()) > 1 and first not in own


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


def _check_flag(argument: str, command: Command) -> None:
    name = argument.partition("=")[0]
    if name not in FLAGS and name not in WITH_VALUE:
        hint = did_you_mean(name, [flag for flag in FLAGS + WITH_VALUE if flag.startswith("--")])
        kind = command.positional
        named = f"{kind.key}='{argument}'" if kind.text else f"./{argument}"
        verb = "is" if kind.text else "of that name is"
        raise UserError(f"no such flag{hint}; settings are key=value, and a {kind.noun} {verb} {named}", key=argument)


def _needs_quotes(value: str, sweeping: bool) -> bool:
    special = bool(set(value) & (SPECIAL - {","} if sweeping else SPECIAL))
    if special and _exists(value):
        return True
    if not value or value[0] in "'\"[" or "${" in value:
        return False
    return special or bool(NO_TEXT.fullmatch(value))


def _sweep_name(overrides: list[str], command: Command) -> str:
    """``3-graph.threshold=0.9``: the job's number and what the command line sweeps; "" where it sweeps nothing."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parts = []
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException:
            return ""
        if override.is_sweep_override():
            key = override.key_or_group
            group = key in groups_of(command.name) or override.package is not None
            parts.append(f"{key}=${{hydra:runtime.choices.{key}}}" if group else f"{key}=${{slug:${{{key}}}}}")
    return "${hydra:job.num}-" + ",".join(parts) if parts else ""
