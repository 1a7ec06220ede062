"""Where in a record each thing lies: dotted paths, with the defaults of the field's usual files."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mig_jax.core.errors import UserError

Path = tuple[str, ...]

FIELDS: dict[str, tuple[str, ...]] = {
    "tags": ("annotation.instag.content",),
    "quality": ("annotation.deita.quality_scores",),
    "complexity": ("annotation.deita.complexity_scores",),
    "ifd": ("ifd_score.content",),
    "id": ("_id", "id"),
    "source": ("source",),
    "tokens": ("annotation.token_count", "tokens", "num_tokens"),
}
"""Default paths of each field; the first that a row has counts."""

DIALOG_FIELDS = ("dialog", "role", "content", "instruction", "input", "output")
"""Fields that move or rename parts of the layout; ``role`` and ``content`` are keys inside a turn."""


class Fields(NamedTuple):
    """Resolved paths.

    Args:
      paths: candidates of every name of ``FIELDS``, in its order.
      dialog: what was asked for of ``DIALOG_FIELDS``, as the user wrote it.
      columns: name (as the user wrote it) and path of each further numeric column.
    """

    paths: dict[str, tuple[Path, ...]]
    dialog: dict[str, str]
    columns: dict[str, Path]


def resolve_fields(fields: Mapping[str, str], columns: Sequence[str]) -> Fields:
    """The user's overrides laid over the defaults; a value of None (a key left empty in a config) means the default.

    Raises:
      UserError: a field that is not known, or a path that is not dotted names.
    """
    allowed = (*FIELDS, *DIALOG_FIELDS)
    for name in fields:
        if name not in allowed:
            raise UserError(f"pool.fields.{name}: no such field; the fields are {', '.join(allowed)}")
    asked = {name: value for name, value in fields.items() if value is not None}
    paths = {
        name: (split(asked[name], f"pool.fields.{name}"),)
        if name in asked
        else tuple(split(path, name) for path in defaults)
        for name, defaults in FIELDS.items()
    }
    if isinstance(columns, str):
        raise UserError(f"pool.columns: {columns!r} is a string; give a list of dotted paths")
    dialog = {name: asked[name] for name in DIALOG_FIELDS if name in asked}
    for name, value in dialog.items():
        if len(split(value, f"pool.fields.{name}")) > 1 and name in ("role", "content"):
            raise UserError(f"pool.fields.{name}: {value!r} is a path; it must be one key of a turn")
    return Fields(paths, dialog, {name: split(name, "pool.columns") for name in columns})


def split(path: str, key: str) -> Path:
    """``a.b.c`` -> ``("a", "b", "c")``."""
    names = tuple(path.split(".")) if isinstance(path, str) else ()
    if not names or not all(names):
        raise UserError(f"{key}: {path!r} is not a path; write the keys from the outside in, joined by dots (a.b.c)")
    return names
