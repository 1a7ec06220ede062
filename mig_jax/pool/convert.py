"""``export.layout=``: convert a normalised dialog to the layout that a trainer reads."""

from typing import Any

import msgspec

from mig_jax.core.errors import UserError
from mig_jax.core.json_files import clean_text

LAYOUTS = ("mig", "sharegpt", "openai", "alpaca")
Dialog = list[tuple[str, str]]
"""(role, content) of each turn; roles are system, user, assistant, tool, function_call."""

_SHAREGPT_ROLE = {
    "system": "system",
    "user": "human",
    "assistant": "gpt",
    "tool": "observation",
    "function_call": "function_call",
}


def check_layout(layout: str | None) -> None:
    """Raise UserError unless ``layout`` is one of ``LAYOUTS`` or None (rows as read). Call it before any work."""
    if layout is not None and layout not in LAYOUTS:
        raise UserError(key="export.layout", value=layout, allowed=(*LAYOUTS, None))


def converted_line(dialog: Dialog, layout: str, where: str) -> bytes:
    """``dialog`` as one line of JSON in ``layout``; other keys are dropped (trace.parquet has the line of each row).

    Args:
      where: ``file:line`` of the row, for messages.

    Raises:
      UserError: an unknown layout, or a dialog that the layout cannot represent.
    """
    if not dialog:
        raise UserError(f"no dialog to write in export.layout={layout}", where=where)
    dialog = [(clean_text(role), clean_text(content)) for role, content in dialog]
    match layout:
        case "mig":
            row: dict[str, Any] = {"dialogs": _role_content(dialog)}
        case "openai":
            row = {"messages": _role_content(dialog)}
        case "sharegpt":
            row = {"conversations": [{"from": _sharegpt_role(role, where), "value": text} for role, text in dialog]}
        case "alpaca":
            row = _alpaca(dialog, where)
        case _:
            check_layout(layout)
            raise AssertionError(layout)
    return msgspec.json.encode(row)


def _role_content(dialog: Dialog) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in dialog]


def _sharegpt_role(role: str, where: str) -> str:
    try:
        return _SHAREGPT_ROLE[role]
    except KeyError:
        raise UserError(
            f"role {role!r} has no name in export.layout=sharegpt; mig and openai keep it", where=where
        ) from None


def _alpaca(dialog: Dialog, where: str) -> dict[str, Any]:
    """The last exchange as instruction and output, earlier ones as history, a leading system turn as system.

    Consecutive turns of one role are joined by a blank line: alpaca has one text for them.
    """
    system = ""
    if dialog and dialog[0][0] == "system":
        system, dialog = dialog[0][1], dialog[1:]
    turns: list[tuple[str, str]] = []
    for role, text in dialog:
        if turns and turns[-1][0] == role:
            turns[-1] = (role, f"{turns[-1][1]}\n\n{text}")
        else:
            turns.append((role, text))
    roles = [role for role, _ in turns]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        raise UserError(
            f"turns {' '.join(role for role, _ in dialog) or '(none)'} do not fit export.layout=alpaca, "
            "which requires user and assistant in alternation, the assistant last; sharegpt and openai keep them",
            where=where,
        )
    pairs = [[turns[i][1], turns[i + 1][1]] for i in range(0, len(turns), 2)]
    instruction, output = pairs.pop()
    # Every row has system and history, even if empty: a reader that maps a column requires it in each row.
    return {"instruction": instruction, "input": "", "output": output, "system": system, "history": pairs}
