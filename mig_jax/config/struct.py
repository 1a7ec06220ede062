"""The base of every settings struct, and what a field says of itself beside its type and range.

YAML under conf/ holds the default of each key and the comment that ``--help`` prints; the struct holds its type and
range. A field has no default, so that a key has only one.

The key of a run or of a cache entry is made of all fields (``key_of``), so that a new one cannot be forgotten; a field
that does not change the result, or whose contents are in the key by a hash, is annotated with ``NOT_IN_KEY``.
"""

from collections.abc import Collection
from types import UnionType
from typing import Annotated, Any, Self, Union, get_args, get_origin

import msgspec

Positive = Annotated[int, msgspec.Meta(ge=1)]
PathStr = Annotated[str, msgspec.Meta(extra={"quoted": "path"})]  # the command line quotes what Hydra cannot read in it
TextStr = Annotated[str, msgspec.Meta(extra={"quoted": "text"})]

NOT_IN_KEY = msgspec.Meta(extra={"in_key": False})


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of the configuration."""

    @classmethod
    def for_settings(cls, settings: Any) -> type[Self]:
        """The struct that ``settings`` are converted to: a subclass where one of their values chooses it."""
        return cls

    def check(self) -> None:
        """Raise UserError for what the types and ranges of single fields cannot express."""


def key_of(config: Struct, without: Collection[str] = ()) -> dict[str, Any]:
    """The settings that decide a result, as plain values: all but those of ``without`` and of ``NOT_IN_KEY``."""
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(config):
        name, value = field.encode_name, getattr(config, field.name)
        if name in without or NOT_IN_KEY in annotations(field.type)[1]:
            continue
        inside = [key.removeprefix(f"{name}.") for key in without if key.startswith(f"{name}.")]
        found[name] = key_of(value, inside) if isinstance(value, Struct) else msgspec.to_builtins(value)
    return found


def annotations(kind: Any) -> tuple[Any, list[msgspec.Meta]]:
    """A field's type without ``Annotated``, and the ``Meta`` that stood there."""
    found: list[msgspec.Meta] = []
    while get_origin(kind) is Annotated:
        kind, *more = get_args(kind)
        found += [meta for meta in more if isinstance(meta, msgspec.Meta)]
    return kind, found


def struct_of(kind: Any) -> type[Struct] | None:
    """The struct that a field's type is; None for any other type."""
    kind, _ = annotations(kind)
    return kind if isinstance(kind, type) and issubclass(kind, Struct) else None


def members(kind: Any) -> tuple[Any, ...]:
    """The alternatives of a union; of any other type that type alone."""
    bare, _ = annotations(kind)
    return get_args(bare) if get_origin(bare) in (Union, UnionType) else (kind,)
