"""``mig-jax --help`` and ``mig-jax COMMAND --help``, from the registry and from the comments of the YAML files."""

import importlib.resources

from mig_jax.commands.registry import COMMANDS, Command
from mig_jax.config.keys import CONF, groups_of, inherited, options_of, read

_EXAMPLES = """
POOL is a file, a folder, a glob or hf:org/name. Examples:
  mig-jax select pool.jsonl.gz n=1000 out=runs/first
  mig-jax select pool.jsonl.gz n=[1000,5000] sampler.gain=exact phi=log
  mig-jax select -m n=100 graph.threshold=0.6,0.7,0.8 out=runs/sweep
"""


def usage() -> str:
    """The list of commands."""
    lines = ["mig-jax: select the rows of an instruction-tuning pool that add the most information", ""]
    lines += [_line(f"{name} {command.usage}", command.summary) for name, command in COMMANDS.items()]
    lines += ["", _line("COMMAND --help", "all keys of a command; --cfg job: the configuration, not run")]
    return "\n".join([*lines, "  mig-jax --version", _EXAMPLES])


def _line(left: str, right: str) -> str:
    return f"  mig-jax {left:<36} {right}"


def command_help(command: Command) -> str:
    """The comment at the head of conf/COMMAND.yaml, the keys of the command, then the options of its groups."""
    head, body = _parts(_text(command.name))
    parts = [f"mig-jax {command.name} {command.usage}\n\n{head}", body]
    parts += [_parts(_text(name))[1] for name in _all_inherited(command.name)]
    for group, prefixes in groups_of(command.name).items():
        how = f"{group}=NAME"
        if prefixes != (group,):
            how = f"{group}@PREFIX=NAME, its keys PREFIX.path=DIR and so on; PREFIX is {', '.join(prefixes)}"
        parts.append(_group(group, how))
    parts += [_group(group, how) for group, how in command.groups.items()]
    return "\n".join(part for part in parts if part)


def _all_inherited(name: str) -> list[str]:
    return [file for other in inherited(name) for file in (other, *_all_inherited(other))]


def _group(group: str, how: str) -> str:
    """The keys that all its options inherit, then the options."""
    files = dict.fromkeys(file for name in options_of(group) for file in reversed(_all_inherited(f"{group}/{name}")))
    shared = [line for file in files if file.endswith("/_base") for line in _parts(_text(file))[1].splitlines()]
    keys = "".join(f"      {line}\n" for line in shared)
    return f"{group} ({how})\n{keys}" + "".join(_option(group, name) for name in options_of(group))


def _text(name: str) -> str:
    return importlib.resources.files(CONF).joinpath(*f"{name}.yaml".split("/")).read_text(encoding="utf-8")


def _parts(text: str) -> tuple[str, str]:
    """The comment at the head of a file; its keys, without the defaults list and Hydra's own settings."""
    lines = text.splitlines()
    end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    head = [line.removeprefix("#").removeprefix(" ") for line in lines[:end]]
    body = _without(_without(lines[end:], "defaults:"), "hydra:")
    return "\n".join(head) + "\n", "\n".join(body).strip("\n") + "\n" if body else ""


def _without(lines: list[str], key: str) -> list[str]:
    """The lines without a top-level key and what is indented below it."""
    if key not in lines:
        return lines
    start = lines.index(key)
    end = next((i for i in range(start + 1, len(lines)) if lines[i] and not lines[i].startswith(" ")), len(lines))
    return lines[:start] + lines[end:]


def _option(group: str, name: str) -> str:
    """Its name, the first line of its comment, and the keys that it sets; of an experiment no keys."""
    lines = _text(f"{group}/{name}").splitlines()
    title = next((line[2:] for line in lines if line.startswith("# ") and not line.startswith("# @")), "")
    text = f"  {name:<17} {title}\n"
    if "hydra" in read(f"{group}/{name}"):
        return text
    keys = [line for line in _without(lines, "defaults:") if line and not line.startswith(("#", "name:"))]
    return text + "".join(f"      {line}\n" for line in keys)
