"""The path of each field in a record, as dotted names, with defaults for common annotated pools."""

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
"""Default paths of each field; the first one that is present in a row is used."""

DIALOG_FIELDS = ("dialog", "role", "content", "instruction", "input", "output")
"""Fields that change the paths or keys of the layout; ``role`` and ``content`` are keys in a turn."""


class Fields(NamedTuple):
    """Resolved paths.

    Args:
      paths: the candidate paths of every key of ``FIELDS``, in its order.
      dialog: the overrides of ``DIALOG_FIELDS``, as the user wrote them.
      columns: the name (as the user wrote it) and path of each additional numeric column.
    """

    paths: dict[str, tuple[Path, ...]]
    dialog: dict[str, str]
    columns: dict[str, Path]


def resolve_fields(fields: Mapping[str, str], columns: Sequence[str]) -> Fields:
    """Merge the user's overrides with the defaults; a value of None (an empty key in a config) means the default.

    Raises:
      UserError: an unknown field, or a path that is not dotted names.
    """
    allowed = (*FIELDS, *DIALOG_FIELDS)
    for name in fields:
        if name not in allowed:
            raise UserError(f"no such field; the fields are {', '.join(allowed)}", key=f"pool.fields.{name}")
    overrides = {name: value for name, value in fields.items() if value is not None}
    paths = {
        name: (split(overrides[name], f"pool.fields.{name}"),)
        if name in overrides
        else tuple(split(path, name) for path in defaults)
        for name, defaults in FIELDS.items()
    }
    if isinstance(columns, str):
        raise UserError(f"{columns!r} is a string", key="pool.columns", allowed="a list of dotted paths")
    dialog = {name: overrides[name] for name in DIALOG_FIELDS if name in overrides}
    for name, value in dialog.items():
        if len(split(value, f"pool.fields.{name}")) > 1 and name in ("role", "content"):
            raise UserError(f"{value!r} is a path", key=f"pool.fields.{name}", allowed="one key of a turn")
    return Fields(paths, dialog, {name: split(name, "pool.columns") for name in columns})


def split(path: str, key: str) -> Path:
    """``a.b.c`` -> ``("a", "b", "c")``."""
    names = tuple(path.split(".")) if isinstance(path, str) else ()
    if not names or not all(names):
        raise UserError(
            f"{path!r} is not a path; write the keys from the outermost in, joined by dots (a.b.c)", key=key
        )
    return names
