"""A configuration checked once: settings in, frozen structs out; every mistake names its key."""

import re
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mig_jax.config.keys import groups_of, keys_of, options_of, options_with, read
from mig_jax.config.struct import Struct, annotations, members, struct_of
from mig_jax.core.errors import UserError, split_validation
from mig_jax.core.text import did_you_mean

Config = TypeVar("Config", bound=Struct)


def checked(raw: DictConfig | dict, kind: type[Config], command: str) -> Config:
    """Settings as a struct.

    Args:
      raw: composed by Hydra, or a plain mapping.
      kind: the struct.
      command: whose keys the messages name.

    Raises:
      UserError: names the key, its value and what is allowed.
    """
    plain = raw
    if isinstance(raw, DictConfig):
        try:
            missing = sorted(OmegaConf.missing_keys(raw))
            if missing:
                raise UserError(f"must be given, as {missing[0]}=...", key=missing[0])
            plain = OmegaConf.to_container(raw, resolve=True)
        except OmegaConfBaseException as error:
            raise composition_error(error, command) from None
    kind = kind.for_settings(plain)
    try:
        config = msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        raise _conversion_error(str(error), plain, kind, command) from None
    config.check()
    return config


def part(file: str, key: str, kind: type[Config], **settings: Any) -> Config:
    """One part of a command's settings: the defaults of conf/FILE.yaml with ``settings``; no interpolations.

    ``part("select", "limits", LimitsConfig, tokens=1000)`` is what ``mig-jax select limits.tokens=1000`` sets.

    Raises:
      UserError: there is no such key, or a value is out of its range.
    """
    whole: Any = msgspec.defstruct(
        "Part", [(key, kind)], bases=(Struct,), frozen=True, kw_only=True
    )  # names keys in full
    return getattr(checked({key: {**read(file)[key], **settings}}, whole, file), key)


def _conversion_error(message: str, plain: Any, root: type[Struct], command: str) -> UserError:
    """msgspec's error as ours; its text gives the path, the struct gives what is allowed."""
    reason, path = split_validation(message)
    key = path.partition("[")[0]
    named = re.search(r"(unknown|missing required) field `([^`]+)`", reason)
    if named:
        name = ".".join(filter(None, (key, named.group(2))))
        return no_such_key(name, command) if named.group(1) == "unknown" else UserError("must be given", key=name)
    value, kind = plain, root
    for part in key.split("."):
        struct = struct_of(kind)
        fields = {field.encode_name: field.type for field in msgspec.structs.fields(struct)} if struct else {}
        if part not in fields or not isinstance(value, dict):
            break
        value, kind = value.get(part), fields[part]
    options = _options(kind)
    hint = did_you_mean(value, map(str, options)) if isinstance(value, str) else ""
    return UserError(key=key, value=value, allowed=f"{described(kind)}{hint}")


def _options(kind: Any) -> tuple[Any, ...]:
    """The values that a Literal, alone or in a union, allows."""
    kind, _ = annotations(kind)
    if get_origin(kind) is Literal:
        return get_args(kind)
    alternatives = members(kind)
    return tuple(value for part in alternatives for value in _options(part)) if len(alternatives) > 1 else ()


def described(kind: Any) -> str:
    """What a type allows, in words."""
    kind, metas = annotations(kind)
    for meta in metas:
        if meta.description is not None:
            return meta.description
    if get_origin(kind) is Literal:
        values = [str(value) for value in get_args(kind)]
        return f"one of {', '.join(values)}" if len(values) > 1 else values[0]
    if len(members(kind)) > 1:
        return " or ".join(map(described, members(kind)))
    if get_origin(kind) is tuple:
        return "a list"
    if get_origin(kind) is dict:
        return "a mapping, as {name: value}"
    if (struct := struct_of(kind)) is not None:
        return f"a group of keys ({', '.join(field.encode_name for field in msgspec.structs.fields(struct))})"
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    limits = [
        f"{sign} {getattr(meta, name):g}"
        for meta in metas
        for name, sign in signs.items()
        if getattr(meta, name) is not None
    ]
    name = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}.get(kind, "null")
    return f"{name} {' and '.join(limits)}" if limits else name


def composition_error(error: Exception, command: str) -> UserError:
    """Hydra's or OmegaConf's error as ours.

    Like msgspec's, these errors are texts; this is the one function that reads them.
    """
    text = f"{error}".strip()
    cause = f"{error.__cause__}".strip() if error.__cause__ is not None else ""
    if isinstance(error, OverrideParseException):
        message = "not key=value as Hydra reads it; quote what has special characters: key='\"a, b\"'"
        return UserError(message, key=error.override)
    option = re.search(r"Could not find '([^']+)/([^']+)'", text)
    if option and options_of(option.group(1)):
        return UserError(key=option.group(1), value=option.group(2), allowed=options_of(option.group(1)))
    key = re.search(r"Could not override '([^']+)'|Key '([^']+)' is not in struct", f"{text}\n{cause}")
    if key:
        return no_such_key(key.group(1) or key.group(2), command)
    lines = [line.strip() for line in (text or cause).splitlines() if line.strip()]
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return UserError(lines[0], key=error.full_key)
    return UserError(" ".join(lines))


def no_such_key(name: str, command: str) -> UserError:
    """The key is unknown, or belongs to another option of its group (``phi.c``: to ``phi=log``)."""
    key = name.rpartition("@")[2]  # model@tags.model
    group, _, rest = key.partition(".")
    keys, groups = keys_of(command), groups_of(command)
    prefixes = groups.get(group, ())
    if prefixes and group not in prefixes:  # the option is chosen once for each use
        example = f"{prefixes[-1]}.{rest}=..." if rest else f"{group}@{prefixes[-1]}=..."
        message = f"no such key; each {group} has a prefix, as {example}: {', '.join(prefixes)}"
        return UserError(message, key=name)
    if rest and prefixes:
        having = options_with(group, rest.partition(".")[0] if key in keys else rest)
        if having:
            options, has = " and ".join(f"{group}={option}" for option in having), "has" if len(having) == 1 else "have"
            return UserError(f"not a key of the {group} chosen; {options} {has} it", key=name)
    others = [other for other in keys if other != key]
    beside = [other for other in others if other.rpartition(".")[0] == key.rpartition(".")[0]]
    hint = did_you_mean(key, beside) or did_you_mean(key, others)
    return UserError(f"no such key{hint} (mig-jax {command} --help lists them all)", key=name)
