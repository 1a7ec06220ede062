"""How a record holds its dialog: a table of layouts. Adding one is one entry."""

from dataclasses import dataclass, replace
from typing import Any

import msgspec

from mig_jax.core.errors import UserError
from mig_jax.pool.fields import Fields, Path, split


@dataclass(frozen=True)
class Layout:
    """A list of turns at ``dialog``; or, where ``dialog`` is empty, an instruction with its output.

    Args:
      name: what ``pool.layout=`` calls it.
      dialog: path of the list of turns.
      role, content: keys inside a turn.
      instruction, input, output: paths of a single exchange's texts; the input may be missing.
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
"""Role names that are another's; any other role (user, assistant, system, tool, ...) stays as it is."""


class Turn(msgspec.Struct, frozen=True, gc=False):
    """One message: the role as the row writes it, and its text."""

    role: str
    content: str


def walk(record: Any, path: Path) -> Any:
    """What lies at ``path``; None where a key is missing or something on the way is not an object."""
    for key in path:
        if type(record) is not dict:
            return None
        record = record.get(key)
    return record


def check_layout(name: str) -> None:
    """Raises UserError for a name that is neither ``auto`` nor a layout's."""
    if name != "auto" and name not in LAYOUTS:
        raise UserError(f"pool.layout={name}: no such layout; allowed: auto, {', '.join(LAYOUTS)}")


def adapt(layout: Layout, fields: Fields) -> Layout:
    """The layout with the user's own paths and keys."""
    asked = fields.dialog
    if layout.dialog:
        keys = {name: asked[name] for name in ("role", "content") if name in asked}
        dialog = split(asked["dialog"], "pool.fields.dialog") if "dialog" in asked else layout.dialog
        layout = replace(layout, dialog=dialog, **keys)
        if layout.role == layout.content:
            raise UserError(f"pool.fields: role and content are both {layout.role!r}; they are two keys of a turn")
        return layout
    names = [name for name in ("instruction", "input", "output") if name in asked]
    return replace(layout, **{name: split(asked[name], f"pool.fields.{name}") for name in names})


def recognise(record: dict[str, Any], fields: Fields, where: str) -> Layout:
    """The layout of a file by its first record, the user's paths taken into account.

    Raises:
      UserError: none fits; names the record's keys and how to map them.
    """
    candidates = [adapt(layout, fields) for layout in LAYOUTS.values()]
    # A path the user gave decides the kind: with a dialog, the keys of its first turn tell which.
    if "dialog" in fields.dialog:
        candidates = [layout for layout in candidates if layout.dialog and _turn_fits(record, layout)]
    elif "instruction" in fields.dialog or "output" in fields.dialog:
        candidates = [layout for layout in candidates if not layout.dialog]
    # A record may have two of the keys, one of them empty; the one with turns is meant.
    fitting = [layout for layout in candidates if _fits(record, layout)]
    for layout in fitting:
        if not layout.dialog or walk(record, layout.dialog):
            return layout
    if fitting:
        return fitting[0]
    keys = ", ".join(list(record)[:20]) or "none"
    known = "; ".join(layout.describe() for layout in LAYOUTS.values())
    asked = "".join(f", pool.fields.{name}={value}" for name, value in fields.dialog.items())
    raise UserError(
        f"{where}: no layout fits this record (keys: {keys}{asked}). Known: {known}. "
        "Name the layout with pool.layout=..., or map it with pool.fields.dialog=... (and role, content), or with "
        "pool.fields.instruction=... and pool.fields.output=..."
    )


def _fits(record: dict[str, Any], layout: Layout) -> bool:
    needed = (layout.dialog,) if layout.dialog else (layout.instruction, layout.output)
    return all(type(parent := walk(record, path[:-1])) is dict and path[-1] in parent for path in needed)


def _turn_fits(record: dict[str, Any], layout: Layout) -> bool:
    turns = walk(record, layout.dialog)
    first = turns[0] if isinstance(turns, list) and turns else None
    return isinstance(first, dict) and layout.role in first and layout.content in first


def turns_of(value: Any, layout: Layout) -> list[Turn] | None:
    """The turns of a decoded list, roles as written; None unless it is a non-empty list of (str, str or null)."""
    if type(value) is not list or not value:
        return None
    turns = []
    for turn in value:
        if type(turn) is not dict:
            return None
        role, content = turn.get(layout.role), turn.get(layout.content)
        # A tool call is a turn without text.
        content = "" if content is None and layout.content in turn else content
        if type(role) is not str or type(content) is not str:
            return None
        turns.append(Turn(role, content))
    return turns


def joined(instruction: str, extra: str | None) -> str:
    """The user's turn of an instruction with its input."""
    return f"{instruction}\n{extra}" if extra else instruction


def dialog_of(record: Any, layout: Layout) -> list[tuple[str, str]] | None:
    """(role, content) of every turn, roles normalised; None where the record has no such dialog."""
    if layout.dialog:
        turns = turns_of(walk(record, layout.dialog), layout)
        return [(ROLES.get(turn.role, turn.role), turn.content) for turn in turns] if turns else None
    texts = [walk(record, path) for path in layout.paths]
    if type(texts[0]) is not str or type(texts[2]) is not str or not isinstance(texts[1], str | None):
        return None
    return [("user", joined(texts[0], texts[1])), ("assistant", texts[2])]


def why_no_dialog(record: Any, layout: Layout) -> str:
    """A phrase for the rejects file."""
    for path in (layout.dialog,) if layout.dialog else (layout.instruction, layout.output):
        value = walk(record, path)
        if value is None:
            return f"no {'.'.join(path)}"
        if layout.dialog and value == []:
            return f"{'.'.join(path)} is empty"
    if layout.dialog:
        return f"{'.'.join(layout.dialog)} is not a list of {{{layout.role}: text, {layout.content}: text}}"
    return "instruction, input or output is not text"
