"""A dialog as exchanges: what was asked, and what was answered. Annotators judge these, not single turns."""

from typing import Any, NamedTuple

from mig_jax.pool.layouts import Layout, dialog_of, walk


class Exchange(NamedTuple):
    """An instruction and its answer.

    Args:
      instruction: what the user says up to the next answer.
      input: the separate input of a layout that has one (``Layout.input``); else empty. Not part of ``instruction``.
      output: what the assistant says up to the user's next turn; None where the dialog ends without an answer.
    """

    instruction: str
    input: str
    output: str | None


def exchanges_of(record: Any, layout: Layout) -> list[Exchange]:
    """The exchanges of a decoded record, in order; none where it has no dialog, or no user's turn.

    User turns with no answer between them are one instruction, and assistant turns up to the user's next turn one
    output, joined by line breaks; turns without text (a tool call is one) add no line. Turns of other roles (system,
    tool, ...) are passed over and part nothing; so are answers before the first user's turn.
    """
    if not layout.dialog:
        if dialog_of(record, layout) is None:
            return []
        instruction, extra, output = (walk(record, path) for path in layout.paths)
        return [Exchange(instruction, extra or "", output)]
    found: list[tuple[list[str], list[str]]] = []
    for role, content in dialog_of(record, layout) or []:
        if role == "user":
            if not found or found[-1][1]:
                found.append(([], []))
            found[-1][0].append(content)
        elif role == "assistant" and found:
            found[-1][1].append(content)
    return [Exchange(_joined(asked), "", _joined(said) if said else None) for asked, said in found]


def _joined(texts: list[str]) -> str:
    return "\n".join(text for text in texts if text)
