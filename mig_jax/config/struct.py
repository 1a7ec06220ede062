"""The base of every settings struct, and what a field says of itself beside its type and range.

YAML under conf/ holds the default of each key and the comment that ``--help`` prints; the struct holds its type and
range. A field has no default, so that a key has only one.
"""

from types import UnionType
from typing import Annotated, Any, Self, Union, get_args, get_origin

import msgspec

Positive = Annotated[int, msgspec.Meta(ge=1)]
PathStr = Annotated[str, msgspec.Meta(extra={"quoted": "path"})]  # the command line quotes what Hydra cannot read in it
TextStr = Annotated[str, msgspec.Meta(extra={"quoted": "text"})]


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of the configuration."""

    @classmethod
    def for_settings(cls, settings: Any) -> type[Self]:
        """The struct that ``settings`` are converted to: a subclass where one of their values chooses it."""
        return cls

    def check(self) -> None:
        """Raise UserError for what the types and ranges of single fields cannot express."""


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


def wrapped(name: str, kind: type[Struct]) -> type[Struct]:
    """A struct with one field, so that messages about ``kind`` name its keys in full: ``sampler.threshold``."""
    return msgspec.defstruct("Part", [(name, kind)], bases=(Struct,), frozen=True, kw_only=True)
