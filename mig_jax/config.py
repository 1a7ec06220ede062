"""The configuration, checked once: YAML and overrides in, frozen structs out; every mistake names its key."""

import difflib
import re
from typing import Annotated, Literal

import msgspec
from omegaconf import DictConfig, OmegaConf

from mig_jax.errors import UserError

Positive = Annotated[int, msgspec.Meta(ge=1)]


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of the configuration."""


class PoolConfig(Struct):
    path: str | tuple[str, ...]
    name: str
    layout: Literal["auto", "mig", "sharegpt", "openai", "alpaca"] = "auto"
    fields: dict[str, str] = {}
    valid_tags: str | None = None
    on_error: Literal["raise", "skip"] = "raise"
    n: Positive | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """The pool's paths, one or several."""
        return (self.path,) if isinstance(self.path, str) else self.path


class EmbedderConfig(Struct):
    name: str
    architecture: str
    path: str | None
    wheel: str | None
    hub: str | None
    revision: str | None
    sha256: str | None
    pooling: Literal["mean", "cls"]
    normalize: bool
    max_length: Positive
    threshold: str | float


class PhiConfig(Struct):
    kind: str
    exponent: float = 0.8
    eps: float = 1e-6
    alpha: float = 1.0
    c: float = 1.0


class SamplerConfig(Struct):
    name: str
    gain: Literal["first_order", "exact"] = "first_order"
    compat: bool = False


class ScoreConfig(Struct):
    source: str = msgspec.field(default="deita", name="from")
    turns: Literal["mean", "sum"] = "mean"
    normalize: bool = False


class GraphConfig(Struct):
    threshold: str | float = "auto"
    degree: Annotated[float, msgspec.Meta(ge=0)] = 4.0
    propagation: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    path: str | None = None


class ExportConfig(Struct):
    layout: Literal["mig", "sharegpt", "openai", "alpaca"] | None = None
    runners_up: Annotated[int, msgspec.Meta(ge=0)] = 50


class EngineConfig(Struct):
    c1: Positive = 16_384
    c2: Positive = 256
    segment: Positive = 1_024
    checkpoint_every: Annotated[float, msgspec.Meta(ge=0)] = 10.0


class MeshConfig(Struct):
    pool: Literal["all"] | Positive = "all"
    coordinator: str | None = None
    processes: Positive | None = None
    process: Annotated[int, msgspec.Meta(ge=0)] | None = None


class SelectConfig(Struct):
    """``mig-jax select``, one budget or several (ascending, distinct)."""

    pool: PoolConfig
    embedder: EmbedderConfig
    phi: PhiConfig
    sampler: SamplerConfig
    n: Positive | tuple[Positive, ...]
    out: str
    seed: int = 42
    overwrite: bool = False
    score: ScoreConfig = ScoreConfig()
    graph: GraphConfig = GraphConfig()
    export: ExportConfig = ExportConfig()
    engine: EngineConfig = EngineConfig()
    mesh: MeshConfig = MeshConfig()
    cache: str | None = None

    @property
    def budgets(self) -> tuple[int, ...]:
        """The budgets, ascending."""
        return tuple(sorted({self.n} if isinstance(self.n, int) else set(self.n)))

    def decides(self) -> dict:
        """What the selected rows depend on: all but where they go, how fast, and on which devices."""
        plain = msgspec.to_builtins(self)
        for key in ("out", "overwrite", "mesh", "engine", "cache"):
            plain.pop(key)
        plain["pool"].pop("path")  # the files' contents count, not where they lie
        return plain


def select_config(raw: DictConfig | dict) -> SelectConfig:
    """Check a composed configuration.

    Raises:
      UserError: names the key, its value and what is allowed.
    """
    plain = OmegaConf.to_container(raw, resolve=True) if isinstance(raw, DictConfig) else raw
    try:
        config = msgspec.convert(plain, SelectConfig)
    except msgspec.ValidationError as error:
        raise UserError(_told(str(error), plain)) from None
    if not config.budgets:
        raise UserError("n=[]: must be a number >= 1, or a list of such numbers")
    return config


def closest(name: str, allowed: list[str]) -> str:
    """"; did you mean X?" where one of ``allowed`` is close, else nothing."""
    near = difflib.get_close_matches(name, allowed, 1)
    return f"; did you mean {near[0]}?" if near else ""


def _told(message: str, plain) -> str:
    """msgspec says "Expected `int`, got `str` - at `$.engine.c1`": turn it into key=value: what is allowed."""
    reason, _, path = message.partition(" - at `$")
    key = path.rstrip("`").lstrip(".")
    if key in ("n", "n[...]"):
        return f"n={plain.get('n')}: must be a number >= 1, or a list of such numbers"
    value = plain
    for part in filter(None, key.replace("[", ".[").split(".")):
        try:
            value = value[int(part[1:-1])] if part.startswith("[") else value[part]
        except (KeyError, IndexError, TypeError, ValueError):
            return f"{key}: {reason}"
    return f"{key}={value}: {reason[0].lower()}{reason[1:]}" if key else message


def composition_error(error: Exception) -> str:
    """Hydra's or OmegaConf's error in one sentence."""
    text = f"{error}".strip()
    cause = f"{error.__cause__}".strip() if error.__cause__ is not None else ""
    option = re.search(r"Could not find '([^']+)/([^']+)'\s+Available options in '[^']+':\s*(.*?)\s*Config search path", text, re.S)
    if option:
        group, given, options = option.groups()
        allowed = sorted(options.split())
        return f"{group}={given}: must be one of {', '.join(allowed)}{closest(given, allowed)}"
    key = re.search(r"Could not override '([^']+)'|Key '([^']+)' is not in struct", f"{text}\n{cause}")
    if key:
        name = key.group(1) or key.group(2)
        return f"{name}: no such key{closest(name, _known_keys())}; mig-jax select --help lists them all"
    return " ".join(line.strip() for line in (text or cause).splitlines() if line.strip())


def _known_keys(struct: type[Struct] | None = None, prefix: str = "") -> list[str]:
    keys = []
    for field in msgspec.structs.fields(struct or SelectConfig):
        keys.append(prefix + field.encode_name)
        if isinstance(field.type, type) and issubclass(field.type, Struct):
            keys += _known_keys(field.type, f"{prefix}{field.encode_name}.")
    return keys
