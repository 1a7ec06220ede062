"""The layouts of dialogs in a record. A new layout is one entry in ``LAYOUTS``."""

from dataclasses import dataclass, replace
from typing import Any

import msgspec

from mig_jax.core.errors import UserError
from mig_jax.pool.fields import Fields, Path, split


@dataclass(frozen=True)
class Layout:
    """A list of turns at ``dialog``; or, if ``dialog`` is empty, an instruction with its output.

    Args:
      name: its value of ``pool.layout=``.
      dialog: the path of the list of turns.
      role, content: the keys in a turn.
      instruction, input, output: the paths of the texts of a single exchange; the input may be missing.
    """

    name: str
    dialog: Path = ()
    role: str = "role"
    content: str = "content"
    instruction: Path = ()
    input: Path = ()
    output: Path = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """The paths that hold the dialog."""
        return (self.dialog,) if self.dialog else (self.instruction, self.input, self.output)

    def describe(self) -> str:
        if self.dialog:
            return f"{self.name} {{{'.'.join(self.dialog)}: [{{{self.role}, {self.content}}}]}}"
        texts = (".".join(self.instruction), ".".join(self.input) + "?", ".".join(self.output))
        return f"{self.name} {{{', '.join(texts)}}}"


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout("mig", dialog=("dialogs",)),
        Layout("sharegpt", dialog=("conversations",), role="from", content="value"),
        Layout("openai", dialog=("messages",)),
        Layout("alpaca", instruction=("instruction",), input=("input",), output=("output",)),
    )
}

ROLES = {"human": "user", "gpt": "assistant", "model": "assistant"}
"""Aliases of role names; any other role (user, assistant, system, tool, ...) is not changed."""


class Turn(msgspec.Struct, frozen=True, gc=False):
    """One message: the role as the row writes it, and its text."""

    role: str
    content: str


def get_path(record: Any, path: Path) -> Any:
    """The value at ``path``; None if a key is missing or an outer value is not an object."""
    for key in path:
        if type(record) is not dict:
            return None
        record = record.get(key)
    return record


def check_layout(name: str) -> None:
    """Raise UserError unless ``name`` is ``auto`` or a key of ``LAYOUTS``."""
    if name != "auto" and name not in LAYOUTS:
        raise UserError(key="pool.layout", value=name, allowed=("auto", *LAYOUTS))


def adapt(layout: Layout, fields: Fields) -> Layout:
    """The layout with the paths and keys of ``pool.fields``."""
    overrides = fields.dialog
    if layout.dialog:
        keys = {name: overrides[name] for name in ("role", "content") if name in overrides}
        dialog = split(overrides["dialog"], "pool.fields.dialog") if "dialog" in overrides else layout.dialog
        layout = replace(layout, dialog=dialog, **keys)
        if layout.role == layout.content:
            raise UserError(
                f"role and content are both {layout.role!r}; they must be two keys of a turn", key="pool.fields"
            )
        return layout
    names = [name for name in ("instruction", "input", "output") if name in overrides]
    return replace(layout, **{name: split(overrides[name], f"pool.fields.{name}") for name in names})


def infer_layout(record: dict[str, Any], fields: Fields, where: str) -> Layout:
    """Infer the layout of a file from its first record and the paths of ``pool.fields``.

    Args:
      where: ``file:line`` of the record, for the message.

    Raises:
      UserError: no layout fits; the message lists the record's keys and the settings that map them.
    """
    candidates = [adapt(layout, fields) for layout in LAYOUTS.values()]
    # A path in pool.fields decides the kind of layout; for a dialog, the keys of its first turn decide the layout.
    if "dialog" in fields.dialog:
        candidates = [layout for layout in candidates if layout.dialog and _turn_fits(record, layout)]
    elif "instruction" in fields.dialog or "output" in fields.dialog:
        candidates = [layout for layout in candidates if not layout.dialog]
    # If a record has the keys of two layouts, the one whose dialog is not empty is used.
    fitting = [layout for layout in candidates if _fits(record, layout)]
    for layout in fitting:
        if not layout.dialog or get_path(record, layout.dialog):
            return layout
    if fitting:
        return fitting[0]
    keys = ", ".join(list(record)[:20]) or "none"
    known = "; ".join(layout.describe() for layout in LAYOUTS.values())
    overrides = "".join(f", pool.fields.{name}={value}" for name, value in fields.dialog.items())
    raise UserError(
        f"no layout fits this record (keys: {keys}{overrides}). Known: {known}. "
        "Name the layout with pool.layout=..., or map it with pool.fields.dialog=... (and role, content), or with "
        "pool.fields.instruction=... and pool.fields.output=...",
        where=where,
    )


def _fits(record: dict[str, Any], layout: Layout) -> bool:
    needed = (layout.dialog,) if layout.dialog else (layout.instruction, layout.output)
    return all(type(parent := get_path(record, path[:-1])) is dict and path[-1] in parent for path in needed)


def _turn_fits(record: dict[str, Any], layout: Layout) -> bool:
    turns = get_path(record, layout.dialog)
    first = turns[0] if isinstance(turns, list) and turns else None
    return isinstance(first, dict) and layout.role in first and layout.content in first


def turns_of(value: Any, layout: Layout) -> list[Turn] | None:
    """The turns of a decoded list, roles as written; None unless each has a role (str) and a content (str or null)."""
    if type(value) is not list or not value:
        return None
    turns = []
    for turn in value:
        if type(turn) is not dict:
            return None
        role, content = turn.get(layout.role), turn.get(layout.content)
        # A tool call is a turn whose content is null.
        content = "" if content is None and layout.content in turn else content
        if type(role) is not str or type(content) is not str:
            return None
        turns.append(Turn(role, content))
    return turns


def join_input(instruction: str, extra: str | None) -> str:
    """The text of the user's turn: the instruction, then its input on a new line."""
    return f"{instruction}\n{extra}" if extra else instruction


def dialog_of(record: Any, layout: Layout) -> list[tuple[str, str]] | None:
    """(role, content) of every turn, with normalised roles; None if the record has no dialog in this layout."""
    if layout.dialog:
        turns = turns_of(get_path(record, layout.dialog), layout)
        return [(ROLES.get(turn.role, turn.role), turn.content) for turn in turns] if turns else None
    texts = [get_path(record, path) for path in layout.paths]
    if type(texts[0]) is not str or type(texts[2]) is not str or not isinstance(texts[1], str | None):
        return None
    return [("user", join_input(texts[0], texts[1])), ("assistant", texts[2])]


def no_dialog_reason(record: Any, layout: Layout) -> str:
    """Why the record has no dialog: a phrase for the file of rejected rows."""
    for path in (layout.dialog,) if layout.dialog else (layout.instruction, layout.output):
        value = get_path(record, path)
        if value is None:
            return f"no {'.'.join(path)}"
        if layout.dialog and value == []:
            return f"{'.'.join(path)} is empty"
    if layout.dialog:
        return f"{'.'.join(layout.dialog)} is not a list of {{{layout.role}: text, {layout.content}: text}}"
    return "instruction, input or output is not text"
