"""A configuration checked once: YAML and overrides in, frozen structs out; every mistake names its key."""

import importlib.resources
import re
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mig_jax.commands.annotate.config import AnnotateConfig
from mig_jax.commands.embed.config import EmbedConfig
from mig_jax.commands.generate.config import GenerateConfig
from mig_jax.commands.registry import COMMANDS
from mig_jax.commands.report.config import ReportConfig
from mig_jax.commands.select.config import LimitsConfig, SelectConfig
from mig_jax.commands.vocabulary.config import VocabularyConfig
from mig_jax.config.struct import Struct
from mig_jax.core.errors import UserError
from mig_jax.core.text import as_typed, did_you_mean
from mig_jax.samplers.config import SamplerOptions

_BUDGETS = "must be a whole number >= 1, or a list of such numbers"
Config = TypeVar("Config", bound=Struct)


def select_config(raw: DictConfig | dict) -> SelectConfig:
    """Check a composed configuration.

    Raises:
      UserError: names the key, its value and what is allowed.
    """
    from mig_jax.encode import factor_names  # pyarrow, which other commands' checks need not wait for

    config = _checked(raw, SelectConfig, "select")
    if config.n is None and config.limits.tokens is None:
        raise UserError("n: must be given, as n=..., or a budget of tokens, as limits.tokens=...")
    if config.n == ():
        raise UserError(f"n=[]: {_BUDGETS}")
    factor_names(config.score.source, "score.from")
    own = getattr(config.sampler, "score", None)
    if own is not None:
        factor_names(own, "sampler.score")
    return config


def sampler_options(name: str, settings: dict[str, Any]) -> Any:
    """The settings of a sampler, checked; Python's door to what ``sampler=NAME sampler.key=value`` sets."""
    from mig_jax.samplers import find_sampler  # it needs this module

    options = find_sampler(name).options
    return _converted({"sampler": {"name": name, **settings}}, _part("sampler", options), "select").sampler


def limits_config(settings: dict[str, Any]) -> LimitsConfig:
    """The same of ``limits.*``."""
    return _converted({"limits": settings}, _part("limits", LimitsConfig), "select").limits


def _part(name: str, kind: Any) -> Any:
    return msgspec.defstruct("Part", [(name, kind)], bases=(Struct,), frozen=True, kw_only=True)


def embed_config(raw: DictConfig | dict) -> EmbedConfig:
    """The same for ``mig-jax embed``."""
    return _checked(raw, EmbedConfig, "embed")


def annotate_config(raw: DictConfig | dict) -> AnnotateConfig:
    """The same for ``mig-jax annotate``."""
    from mig_jax.commands.annotate.annotators import NAMES, chosen, find_annotator  # they need this module

    config = _checked(raw, AnnotateConfig, "annotate")
    chosen(config.annotators)
    plain = msgspec.to_builtins(config)
    tagger = config.tags.get("name") if isinstance(config.tags, dict) else None
    return _converted(
        plain, _annotate_with([(name, find_annotator(name, tagger).options) for name in NAMES]), "annotate"
    )


def _annotate_with(kinds: list[tuple[str, Any]]) -> Any:
    return msgspec.defstruct("AnnotateConfig", kinds, bases=(AnnotateConfig,), frozen=True, kw_only=True)


def vocabulary_config(raw: DictConfig | dict) -> VocabularyConfig:
    """The same for ``mig-jax vocabulary``."""
    return _checked(raw, VocabularyConfig, "vocabulary")


def generate_config(raw: DictConfig | dict) -> GenerateConfig:
    """The same for ``mig-jax generate``."""
    return _checked(raw, GenerateConfig, "generate")


def report_config(raw: DictConfig | dict) -> ReportConfig:
    """The same for ``mig-jax report``."""
    return _checked(raw, ReportConfig, "report")


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
    return _converted(plain, _of_sampler(plain) if kind is SelectConfig else kind, command)


def _converted(plain: Any, kind: Any, command: str) -> Any:
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        raise UserError(_told(str(error), plain, kind, command)) from None


def _of_sampler(plain: Any) -> Any:
    """SelectConfig with the settings of the sampler that is chosen; those stand beside its code."""
    from mig_jax.samplers import find_sampler  # it needs this module

    chosen = plain.get("sampler") if isinstance(plain, dict) else None
    name = chosen.get("name") if isinstance(chosen, dict) else None
    options = find_sampler(name).options if isinstance(name, str) else SamplerOptions
    return _select_with(options)


@cache
def _select_with(options: type[SamplerOptions]) -> Any:
    return msgspec.defstruct("SelectConfig", [("sampler", options)], bases=(SelectConfig,), frozen=True, kw_only=True)


def _told(message: str, plain: Any, root: Any, command: str) -> str:
    """msgspec says "Expected `int`, got `str` - at `$.engine.shortlist`": turn it into key=value: what is allowed."""
    reason, _, path = message.partition(" - at `$")
    key = path.rstrip("`").lstrip(".")
    named = re.search(r"(unknown|missing required) field `([^`]+)`", reason)
    if named:
        name = ".".join(filter(None, (key, named.group(2))))
        return _no_such_key(name, command, root) if named.group(1) == "unknown" else f"{name}: must be given"
    if key == "n" or key.startswith("n["):
        return f"n={as_typed(plain.get('n'))}: {_BUDGETS}"
    value: Any = plain
    kind: Any = root
    for part in key.split("."):
        part = part.partition("[")[0]
        fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)} if _is_struct(kind) else {}
        if part not in fields or not isinstance(value, dict):
            break
        value, kind = value.get(part), fields[part]
    options = [str(option) for option in _options(kind)]
    hint = did_you_mean(value, options) if isinstance(value, str) else ""
    return f"{key.partition('[')[0]}={as_typed(value)}: must be {_allowed(kind)}{hint}"


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
        signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
        limits = [f"{sign} {getattr(meta, name):g}" for name, sign in signs.items() if getattr(meta, name) is not None]
        return f"{_allowed(base)} {' and '.join(limits)}"
    if _parts(kind):
        return " or ".join(map(_allowed, _parts(kind)))
    if get_origin(kind) is tuple:
        return "a list"
    if get_origin(kind) is dict:
        return "a mapping, as {name: value}"
    if _is_struct(kind):
        return f"a group of keys ({', '.join(field.encode_name for field in msgspec.structs.fields(kind))})"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}.get(kind, "null")


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
        return f"{group}={given}: must be one of {', '.join(allowed)}{did_you_mean(given, allowed)}"
    key = re.search(r"Could not override '([^']+)'|Key '([^']+)' is not in struct", f"{text}\n{cause}")
    if key:
        return _no_such_key(key.group(1) or key.group(2), command)
    lines = [line.strip() for line in (text or cause).splitlines() if line.strip()]
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return f"{error.full_key}: {lines[0]}"
    return " ".join(lines)


def _no_such_key(name: str, command: str, root: Any = None) -> str:
    """The key is unknown, or belongs to another choice of its group (phi.c: to phi=log)."""
    key = name.rpartition("@")[2]  # model@tags.model
    group, _, rest = key.partition(".")
    if command == "annotate" and group == "model":
        meant = f"ifd.{name}=..." if rest else "model@ifd.model=..."
        return f"{name}: no such key; each model has a place of its own, as {meant}: {', '.join(model_places())}"
    folder = importlib.resources.files("mig_jax.conf") / group
    keys = _keys_of(command)
    if rest and group in keys and folder.is_dir():
        files = sorted((path.name, path) for path in folder.iterdir() if path.name.endswith(".yaml"))
        part = rest.partition(".")[0] if key in keys else rest
        having = [stem[:-5] for stem, path in files if _has(OmegaConf.create(path.read_text(encoding="utf-8")), part)]
        if having:
            options, has = " and ".join(f"{group}={one}" for one in having), "has" if len(having) == 1 else "have"
            return f"{name}: not a key of the {group} chosen; {options} {has} it"
    known = [one for one in (_known_keys(root) if root else keys) if one != key]
    beside = [one for one in known if one.rpartition(".")[0] == key.rpartition(".")[0]]
    hint = did_you_mean(key, beside) or did_you_mean(key, known)
    return f"{name}: no such key{hint} (mig-jax {command} --help lists them all)"


def _has(option: Any, key: str) -> bool:
    """Whether an option of a group has the key, itself or by a model that its defaults put there."""
    put = [str(place) for one in option.get("defaults", ()) if isinstance(one, DictConfig) for place in one]
    return key in option or f"/model@{key}" in put


def model_places() -> list[str]:
    """Where ``mig-jax annotate`` has the keys of a model."""
    keys = [key for key in _keys_of("annotate") if key.endswith(".wheel")]  # a model has it, and nothing else
    return [key.removesuffix(".wheel") for key in keys if not key.startswith("embedder.")]


def _keys_of(command: str) -> list[str]:
    """The keys of a command, whichever of its choices have them."""
    if command != "annotate":
        return _known_keys(COMMANDS[command])
    from mig_jax.commands.annotate.annotators import SCORERS, TAGGERS  # they need this module

    kinds = [*(("tags", one) for one in TAGGERS.values()), *SCORERS.items()]
    own = [key for name, one in kinds for key in _known_keys(one.options, f"{name}.")]
    return list(dict.fromkeys(_known_keys(AnnotateConfig) + own))


def _known_keys(struct: type[Struct], prefix: str = "") -> list[str]:
    keys = []
    for field in msgspec.structs.fields(struct):
        keys.append(prefix + field.encode_name)
        if isinstance(field.type, type) and issubclass(field.type, Struct):
            keys += _known_keys(field.type, f"{prefix}{field.encode_name}.")
    return keys
