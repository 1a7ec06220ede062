"""Every command, one entry each: usage, help, dispatch, checks, quoting and messages derive from it.

A new command is a folder with ``config.py`` (types and ranges of its keys) and ``run.py``, a file conf/NAME.yaml (the
defaults; its first comment is the text of ``--help``) and an entry here.
"""

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, get_origin

import msgspec
from omegaconf import DictConfig

from mig_jax.config import compose as yaml
from mig_jax.config.check import checked
from mig_jax.config.keys import groups_of
from mig_jax.config.struct import Struct, annotations, members, struct_of


@dataclass(frozen=True)
class Positional:
    """The arguments without ``key=``.

    Args:
      key: the setting that they are.
      noun: what messages call one.
      several: how several are given; "" where the command takes any number of arguments.
      file_key: the setting that an argument is which names a file; None: ``key`` too.
      text: an argument may be any text, such as "x = 3: what is x?".
    """

    key: str
    noun: str
    several: str = ""
    file_key: str | None = None
    text: bool = False


POOL = Positional("pool.path", "pool", "several files: pool.path=[a,b]")


@dataclass(frozen=True)
class Command:
    """One command.

    Args:
      name: also of its file in conf/.
      usage: its arguments.
      summary: what it does, for the list of commands.
      config: "module:struct" of its settings. It is imported when the command is used, as ``run`` is.
      run: "module:function" that takes the settings and a ``Call`` and returns what to print: a text, or a rich
        renderable. Of a command with flags of its own: that takes the arguments.
      positional: the arguments without a key.
      makes: what one run makes, for the message that ``-m`` belongs to another command; "": the command takes ``-m``.
      resumes: the same command resumes after an interruption.
      processes: how several processes work together: "jax" (jax.distributed, always), "disk" (they share a disk;
        jax.distributed only with mesh.coordinator), or None: the command is one process.
      compiles: programs that JAX compiles are stored in the cache. (plan measures how long compilation takes.)
      groups: options for ``--help`` beside those of the command's defaults list: name -> how one is chosen.
      flags: the command has flags of its own and takes no ``key=value``.
    """

    name: str
    usage: str
    summary: str
    config: str
    run: str
    positional: Positional = POOL
    makes: str = ""
    resumes: bool = False
    processes: str | None = None
    compiles: bool = True
    groups: dict[str, str] = field(default_factory=dict)
    flags: bool = False

    @cached_property
    def struct(self) -> type[Struct]:
        """Of its settings."""
        return load(self.config)

    def check(self, raw: DictConfig | dict) -> Any:
        """Composed settings as a struct; UserError names a wrong key, its value and what is allowed."""
        return checked(raw, self.struct, self.name)

    @cached_property
    def quoted(self) -> dict[str, str]:
        """Keys that hold a path or another text, whose values may have any characters: key -> "path" or "text"."""
        found = dict(_quoted(self.struct, ""))
        models = groups_of(self.name).get("model", ())
        return found | {f"{prefix}.path": "path" for prefix in models} | {"tags.prompt": "text"}

    @cached_property
    def mappings(self) -> tuple[str, ...]:
        """Keys whose values are mappings with names that the user chooses."""
        return tuple(key for key, kind in _fields(self.struct, "") if any(_is_dict(part) for part in members(kind)))


COMMANDS = {
    command.name: command
    for command in (
        Command(
            "select",
            "[POOL] [key=value ...] [-m]",
            "pool -> selection, report and trace; alone: the bundled pool",
            config="mig_jax.commands.select.config:SelectConfig",
            run="mig_jax.commands.select.run:run",
            resumes=True,
            processes="jax",
            groups={"experiment": "+experiment=NAME with -m"},
        ),
        Command(
            "plan",
            "[POOL] [key=value ...]",
            "what that select would take here: seconds, memory, whether it fits",
            config="mig_jax.commands.plan.config:PlanConfig",
            run="mig_jax.commands.plan.command:run",
            makes="plans one selection",
            compiles=False,
        ),
        Command(
            "annotate",
            "[POOL] [key=value ...]",
            "raw rows -> the same rows with tags and scores; resumes",
            config="mig_jax.commands.annotate.config:AnnotateConfig",
            run="mig_jax.commands.annotate.run:run",
            makes="makes one pool",
            resumes=True,
            processes="disk",
        ),
        Command(
            "vocabulary",
            "[POOL] [key=value ...]",
            "a pool's tags -> labels, and which tags mean them (#InsTag's four steps)",
            config="mig_jax.commands.vocabulary.config:VocabularyConfig",
            run="mig_jax.commands.vocabulary.run:run",
            makes="makes one vocabulary",
        ),
        Command(
            "embed",
            "[POOL|FILE] [key=value ...]",
            "texts or labels -> embeddings.npy; resumes",
            config="mig_jax.commands.embed.config:EmbedConfig",
            run="mig_jax.commands.embed.run:run",
            makes="makes one set of embeddings",
            resumes=True,
            processes="disk",
        ),
        Command(
            "generate",
            "PROMPT|FILE [key=value ...]",
            "the answers of a language model",
            config="mig_jax.commands.generate.config:GenerateConfig",
            run="mig_jax.commands.generate.run:run",
            positional=Positional("prompt", "prompt", "several prompts: a file of them", "prompts", text=True),
            makes="runs one model",
        ),
        Command(
            "report",
            "RUN [RUN ...] [key=value ...]",
            "runs or sweeps -> one page that compares them; of one run its page again",
            config="mig_jax.commands.report.config:ReportConfig",
            run="mig_jax.commands.report.run:run",
            positional=Positional("runs", "run"),
            makes="writes one page",
            compiles=False,
        ),
        Command(
            "sample",
            "SRC --out FILE ...",
            "select with the flags of yichengchen24/MIG (= xsample)",
            config="mig_jax.commands.select.config:SelectConfig",
            run="mig_jax.cli.sample:sample",
            resumes=True,
            flags=True,
        ),
    )
}


def compose(command: str, overrides: Sequence[str] = ()) -> Any:
    """The checked settings of ``mig-jax COMMAND OVERRIDES``."""
    return yaml.compose(command, overrides, COMMANDS[command].struct)


def load(name: str) -> Any:
    """What "module:name" is."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _fields(struct: type[Struct], prefix: str) -> Iterator[tuple[str, Any]]:
    """(key, type) of a struct's fields and of those inside them."""
    for part in msgspec.structs.fields(struct):
        yield prefix + part.encode_name, part.type
        for member in members(part.type):
            if (inner := struct_of(member)) is not None:
                yield from _fields(inner, f"{prefix}{part.encode_name}.")


def _is_dict(kind: Any) -> bool:
    return get_origin(annotations(kind)[0]) is dict


def _quoted(struct: type[Struct], prefix: str) -> Iterator[tuple[str, str]]:
    for key, kind in _fields(struct, prefix):
        for member in (kind, *members(kind)):
            for meta in annotations(member)[1]:
                if meta.extra and "quoted" in meta.extra:
                    yield key, meta.extra["quoted"]
