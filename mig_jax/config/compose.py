"""From the YAML of a command and overrides to its settings: what Hydra does for the command line, for Python code."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mig_jax.config.check import checked, composition_error
from mig_jax.config.keys import CONF
from mig_jax.config.struct import Struct

Config = TypeVar("Config", bound=Struct)


def compose(
    command: str, overrides: Sequence[str], kind: type[Config], values: Mapping[str, Any] | None = None
) -> Config:
    """The checked settings of ``mig-jax COMMAND OVERRIDES``.

    Args:
      command: a file of conf/.
      overrides: ``key=value`` in Hydra's grammar.
      kind: the struct of the command.
      values: key -> value, as they are: Python objects that Hydra's grammar cannot hold. They come last.

    Raises:
      UserError: names the key, its value and what is allowed.
    """
    try:
        raw = composed(command, overrides)
        settings: Any = raw if values is None else OmegaConf.to_container(raw, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise composition_error(error, command) from None
    for key, value in (values or {}).items():
        *groups, name = key.split(".")
        group = settings
        for part in groups:
            group = group.setdefault(part, {})
        group[name] = value
    return checked(settings, kind, command)


def composed(command: str, overrides: Sequence[str] = ()) -> DictConfig:
    """The same before it is checked."""
    with hydra.initialize_config_module(CONF, version_base="1.3"):
        return hydra.compose(command, overrides=list(overrides))


def stem(path: object) -> str:
    """The name of a pool: its first path without folders and endings; the bundled pool is "demo"."""
    first = str(path if isinstance(path, str) else next(iter(path or ()), "pool"))  # type: ignore[call-overload]
    if first == "bundled":
        return "demo"
    if first.startswith("hf:"):
        return first[3:].split(":")[0].rpartition("/")[2] or "pool"
    name = Path(first).name.split(".")[0]
    return name if name and not set(name) & set("*?[") else "pool"


def slug(value: object) -> str:
    """A value as part of a folder's name."""
    text = re.sub(r"[^\w.,=+-]+", "_", "null" if value is None else str(value)).strip("_.")
    return text[-60:] or "_"


# The YAML uses them: ${stem:PATH}, ${unless:A,B} and ${slug:VALUE}.
OmegaConf.register_new_resolver("stem", stem, replace=True)
OmegaConf.register_new_resolver("unless", lambda this, other: other if this is None else None, replace=True)
OmegaConf.register_new_resolver("slug", slug, replace=True)
