"""A dialog as exchanges: instructions and their answers. Annotators score exchanges, not single turns."""

from typing import Any, NamedTuple

from mig_jax.pool.layouts import Layout, dialog_of, get_path


class Exchange(NamedTuple):
    """An instruction and its answer.

    Args:
      instruction: the user's text up to the next answer.
      input: the separate input of a layout that has one (``Layout.input``); else empty. Not part of ``instruction``.
      output: the assistant's text up to the user's next turn; None if the dialog ends without an answer.
    """

    instruction: str
    input: str
    output: str | None


def exchanges_of(record: Any, layout: Layout) -> list[Exchange]:
    """The exchanges of a decoded record, in order; an empty list if it has no dialog or no turn of the user.

    User turns with no answer between them form one instruction; assistant turns up to the user's next turn form one
    output. Turns are joined by line breaks; turns without text (such as tool calls) add no line. Turns of other roles
    (system, tool, ...) are ignored and do not split a text; so are answers before the first turn of the user.
    """
    if not layout.dialog:
        if dialog_of(record, layout) is None:
            return []
        instruction, extra, output = (get_path(record, path) for path in layout.paths)
        return [Exchange(instruction, extra or "", output)]
    pairs: list[tuple[list[str], list[str]]] = []  # the instruction's turns, the answer's turns
    for role, content in dialog_of(record, layout) or []:
        if role == "user":
            if not pairs or pairs[-1][1]:
                pairs.append(([], []))
            pairs[-1][0].append(content)
        elif role == "assistant" and pairs:
            pairs[-1][1].append(content)
    return [
        Exchange(_joined(instructions), "", _joined(answers) if answers else None) for instructions, answers in pairs
    ]


def _joined(texts: list[str]) -> str:
    return "\n".join(text for text in texts if text)
