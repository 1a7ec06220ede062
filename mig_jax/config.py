"""The configuration, checked once: YAML and overrides in, frozen structs out; every mistake names its key."""

import difflib
import importlib.resources
import re
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mig_jax.errors import UserError

Positive = Annotated[int, msgspec.Meta(ge=1)]
_BUDGETS = "must be a whole number >= 1, or a list of such numbers"


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of the configuration."""


class PoolConfig(Struct, frozen=True):
    path: str | tuple[str, ...]
    name: str
    layout: Literal["auto", "mig", "sharegpt", "openai", "alpaca"] = "auto"
    fields: dict[str, str] = {}
    valid_tags: str | None = None
    on_error: Literal["raise", "skip"] = "raise"
    n: Positive | None = None
    note: str | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """The pool's paths, one or several."""
        return (self.path,) if isinstance(self.path, str) else self.path


class EmbedderConfig(Struct, frozen=True):
    name: str
    architecture: str | None
    path: str | None
    wheel: str | None
    hub: str | None
    revision: str | None
    sha256: str | None
    pooling: Literal["mean", "cls", "last"] | None
    normalize: bool
    max_length: Positive | None
    threshold: str | float
    append_eos: bool | None = False
    prompt: str = "Instruct: {instruction}\nQuery: {text}"
    instruction: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["auto", "fused", "plain"] = "auto"


class ModelConfig(Struct, frozen=True):
    name: str
    architecture: str | None
    path: str | None
    wheel: str | None
    hub: str | None
    revision: str | None
    sha256: str | None
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["auto", "fused", "plain"] = "auto"
    max_length: Positive | None = None


class PhiConfig(Struct, frozen=True):
    kind: str
    exponent: float = 0.8
    eps: float = 1e-6
    alpha: float = 1.0
    c: float = 1.0


class SamplerConfig(Struct, frozen=True):
    name: str
    gain: Literal["first_order", "exact"] = "first_order"
    compat: bool = False


class ScoreConfig(Struct, frozen=True):
    source: str = msgspec.field(default="deita", name="from")
    turns: Literal["mean", "sum"] = "mean"
    normalize: bool = False


class GraphConfig(Struct, frozen=True):
    threshold: str | float = "auto"
    degree: Annotated[float, msgspec.Meta(ge=0)] = 4.0
    propagation: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    path: str | None = None


class ExportConfig(Struct, frozen=True):
    layout: Literal["mig", "sharegpt", "openai", "alpaca"] | None = None
    runners_up: Annotated[int, msgspec.Meta(ge=0)] = 50


class EngineConfig(Struct, frozen=True):
    c1: Positive = 16_384
    c2: Positive = 256
    inner: Literal["auto", "device", "host"] = "auto"
    segment: Positive = 1_024
    checkpoint_every: Annotated[float, msgspec.Meta(ge=0)] = 10.0


class MeshConfig(Struct, frozen=True):
    pool: Literal["all"] | Positive = "all"
    data: Literal["auto"] | Positive = "auto"
    fsdp: Positive = 1
    tensor: Positive = 1
    coordinator: str | None = None
    processes: Positive | None = None
    process: Annotated[int, msgspec.Meta(ge=0)] | None = None


class SelectConfig(Struct, frozen=True):
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
        # Contents count, not where they lie: files, labels and graph are in the run's key by their hashes.
        for part, key in (
            ("pool", "path"),
            ("pool", "valid_tags"),
            ("pool", "n"),
            ("pool", "note"),
            ("graph", "path"),
            ("embedder", "path"),
            ("embedder", "instruction"),  # labels go in as they are
            ("embedder", "prompt"),
        ):
            plain[part].pop(key)
        return plain


class EmbedOptions(Struct, frozen=True):
    of: Literal["rows", "labels"] = "rows"
    batch_tokens: Literal["auto"] | Positive = "auto"
    save_every: Annotated[float, msgspec.Meta(ge=0)] = 10.0


class EmbedConfig(Struct, frozen=True):
    """``mig-jax embed``."""

    pool: PoolConfig
    embedder: EmbedderConfig
    out: str
    embed: EmbedOptions = EmbedOptions()
    overwrite: bool = False
    mesh: MeshConfig = MeshConfig()
    cache: str | None = None


class GenerateOptions(Struct, frozen=True):
    max_new_tokens: Positive = 256
    temperature: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    top_k: Positive | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0)] | None = None
    stop: tuple[str, ...] = ()
    chat: Literal["auto"] | bool = "auto"
    system: str | None = None


class GenerateConfig(Struct, frozen=True):
    """``mig-jax generate``."""

    model: ModelConfig
    prompt: str | None = None
    prompts: str | None = None
    out: str | None = None
    overwrite: bool = False
    seed: Annotated[int, msgspec.Meta(ge=0)] = 42
    generate: GenerateOptions = GenerateOptions()
    mesh: MeshConfig = MeshConfig()
    cache: str | None = None


COMMANDS: dict[str, type[Struct]] = {"select": SelectConfig, "embed": EmbedConfig, "generate": GenerateConfig}
Config = TypeVar("Config", bound=Struct)


def select_config(raw: DictConfig | dict) -> SelectConfig:
    """Check a composed configuration.

    Raises:
      UserError: names the key, its value and what is allowed.
    """
    config = _checked(raw, SelectConfig, "select")
    if not config.budgets:
        raise UserError(f"n=[]: {_BUDGETS}")
    return config


def embed_config(raw: DictConfig | dict) -> EmbedConfig:
    """The same for ``mig-jax embed``."""
    return _checked(raw, EmbedConfig, "embed")


def generate_config(raw: DictConfig | dict) -> GenerateConfig:
    """The same for ``mig-jax generate``."""
    return _checked(raw, GenerateConfig, "generate")


def _checked(raw: DictConfig | dict, kind: type[Config], command: str) -> Config:
    plain = raw
    if isinstance(raw, DictConfig):
        try:
            missing = sorted(OmegaConf.missing_keys(raw))
            if missing:
                raise UserError(f"{missing[0]}: must be given, as {missing[0]}=...")
            plain = OmegaConf.to_container(raw, resolve=True)
        except OmegaConfBaseException as error:
            raise UserError(composition_error(error, command)) from None
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        raise UserError(_told(str(error), plain, command)) from None


def closest(name: str, allowed: list[str]) -> str:
    """What to add to a message where one of ``allowed`` is close: "; did you mean X?"; else nothing."""
    near = difflib.get_close_matches(name, allowed, 1)
    return f"; did you mean {near[0]}?" if near else ""


def _told(message: str, plain: Any, command: str) -> str:
    """msgspec says "Expected `int`, got `str` - at `$.engine.c1`": turn it into key=value: what is allowed."""
    reason, _, path = message.partition(" - at `$")
    key = path.rstrip("`").lstrip(".")
    named = re.search(r"(unknown|missing required) field `([^`]+)`", reason)
    if named:
        name = ".".join(filter(None, (key, named.group(2))))
        return _no_such_key(name, command) if named.group(1) == "unknown" else f"{name}: must be given"
    if key == "n" or key.startswith("n["):
        return f"n={_shown(plain.get('n'))}: {_BUDGETS}"
    value: Any = plain
    kind: Any = COMMANDS[command]
    for part in key.split("."):
        part = part.partition("[")[0]
        fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)} if _is_struct(kind) else {}
        if part not in fields or not isinstance(value, dict):
            break
        value, kind = value.get(part), fields[part]
    options = [str(option) for option in _options(kind)]
    hint = closest(value, options) if isinstance(value, str) else ""
    return f"{key.partition('[')[0]}={_shown(value)}: must be {_allowed(kind)}{hint}"


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Struct)


def _options(kind: Any) -> tuple[Any, ...]:
    """The values that a Literal, alone or in a union, allows."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return tuple(value for part in _parts(kind) for value in _options(part))


def _parts(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else ()


def _allowed(kind: Any) -> str:
    """A type in words."""
    if get_origin(kind) is Literal:
        values = [str(value) for value in get_args(kind)]
        return f"one of {', '.join(values)}" if len(values) > 1 else values[0]
    if get_origin(kind) is Annotated:
        base, meta = get_args(kind)
        return f"{_allowed(base)} >= {meta.ge:g}"
    if _parts(kind):
        return " or ".join(map(_allowed, _parts(kind)))
    if get_origin(kind) is tuple:
        return "a list"
    if get_origin(kind) is dict:
        return "a mapping, as {tags: meta.tags}"
    if _is_struct(kind):
        return f"a group of keys ({', '.join(field.encode_name for field in msgspec.structs.fields(kind))})"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}.get(kind, "null")


def _shown(value: Any) -> str:
    """A value as one would type it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def composition_error(error: Exception, command: str = "select") -> str:
    """Hydra's or OmegaConf's error in one sentence."""
    command = command if command in COMMANDS else "select"  # plan has its keys
    text = f"{error}".strip()
    cause = f"{error.__cause__}".strip() if error.__cause__ is not None else ""
    if isinstance(error, OverrideParseException):
        return f"{error.override}: not key=value as Hydra reads it; quote what has special characters: key='\"a, b\"'"
    option = re.search(
        r"Could not find '([^']+)/([^']+)'\s+Available options in '[^']+':\s*(.*?)\s*Config search path", text, re.S
    )
    if option:
        group, given, options = option.groups()
        allowed = sorted(options.split())
        return f"{group}={given}: must be one of {', '.join(allowed)}{closest(given, allowed)}"
    key = re.search(r"Could not override '([^']+)'|Key '([^']+)' is not in struct", f"{text}\n{cause}")
    if key:
        return _no_such_key(key.group(1) or key.group(2), command)
    lines = [line.strip() for line in (text or cause).splitlines() if line.strip()]
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return f"{error.full_key}: {lines[0]}"
    return " ".join(lines)


def _no_such_key(name: str, command: str) -> str:
    """The key is unknown, or belongs to another choice of its group (phi.c: to phi=log)."""
    group, _, rest = name.partition(".")
    folder = importlib.resources.files("mig_jax.conf") / group
    if rest and folder.is_dir():
        files = sorted((path.name, path) for path in folder.iterdir() if path.name.endswith(".yaml"))
        having = [stem[:-5] for stem, path in files if rest in OmegaConf.create(path.read_text(encoding="utf-8"))]
        if having:
            return f"{name}: not a key of the {group} chosen; {' and '.join(f'{group}={one}' for one in having)} has it"
    known = [key for key in _known_keys(COMMANDS[command]) if key != name]
    return f"{name}: no such key{closest(name, known)} (mig-jax {command} --help lists them all)"


def _known_keys(struct: type[Struct], prefix: str = "") -> list[str]:
    keys = []
    for field in msgspec.structs.fields(struct):
        keys.append(prefix + field.encode_name)
        if isinstance(field.type, type) and issubclass(field.type, Struct):
            keys += _known_keys(field.type, f"{prefix}{field.encode_name}.")
    return keys
