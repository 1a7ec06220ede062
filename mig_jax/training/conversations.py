"""A conversation as training data: the token ids of its whole rendering, and which of them are trained.

Trained are the content of each assistant turn and the token that ends the turn. The header of a turn is not, nor what
follows the end of a turn. Positions come from the text of the whole rendering, never from token values: content may
hold the text of a control token, padding may be the same token as the end of a turn, and a rendered prompt is not
always a prefix of the rendered conversation.

How the contents are found: the conversation is rendered a second time with a marker in place of each content. The
pieces between the markers are what the template writes. The first rendering must be these pieces with the contents
between them, character for character; a template that strips white space from contents is recognised. A template with
``{% generation %}`` blocks states itself what is trained.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from mig_jax.core.errors import UserError
from mig_jax.models.tokenizers.chat import GENERATION_END, GENERATION_START
from mig_jax.models.tokenizers.text_tokenizer import TextTokenizer, whole_characters

TRAIN_ON = ("assistant", "last", "all")
ASSISTANT = "assistant"
_MARKS = ("\ue000", "\ue001")  # private-use characters, which no template writes

NO_TURN = "no turn"
NO_ASSISTANT = "no assistant turn"
CHANGED = "the chat template changes the contents"
REFUSED = "the chat template refuses it"
NO_TRAINED_TOKEN = "no trained token within max_length"


class Example(NamedTuple):
    """One conversation as token ids.

    Args:
      ids: of the whole rendering, cut at ``max_length``; int32 ``[L]``.
      trained: whether a token counts in the loss; never the first, which nothing predicts; bool ``[L]``.
      cut: the number of tokens that ``max_length`` removed.
    """

    ids: Int32[np.ndarray, " L"]
    trained: Bool[np.ndarray, " L"]
    cut: int


class Skipped(NamedTuple):
    """A conversation that cannot be trained on, and the reason: one of the constants of this module, and details."""

    reason: str
    detail: str = ""


def encode_conversation(
    messages: Sequence[Mapping[str, str]],
    tokenizer: TextTokenizer,
    *,
    max_length: int,
    train_on: str = "assistant",
) -> Example | Skipped:
    """Render, tokenise and mask one conversation.

    Args:
      messages: each with ``role`` and ``content``. Every assistant turn is trained, two in a row both, an empty one
        by the token that ends it. Other roles are context.
      max_length: tokens to keep; the end is cut off.
      train_on: "assistant" (every assistant turn), "last" (the last of them), "all" (every token but the first).

    Raises:
      UserError: the tokenizer cannot report the text positions of its tokens, or has no chat template.
    """
    if not messages:
        return Skipped(NO_TURN)
    messages = [{**message, "content": whole_characters(message["content"])} for message in messages]
    if any(GENERATION_START in message["content"] or GENERATION_END in message["content"] for message in messages):
        return Skipped(REFUSED, "a content holds the marks of generation blocks")
    turns = [n for n, message in enumerate(messages) if message["role"] == ASSISTANT]
    if not turns and train_on != "all":
        return Skipped(NO_ASSISTANT)
    try:
        rendered = tokenizer.prompt(messages, add_generation_prompt=False, mark_generation=True)
    except UserError as error:
        if tokenizer.template is None:
            raise
        return Skipped(REFUSED, str(error))
    marked = GENERATION_START in rendered
    text, blocks = _without_marks(rendered) if marked else (rendered, [])
    ids, start, end = tokenizer.positions(text)
    if train_on == "all":
        trained = np.ones(len(ids), bool)
    else:
        if marked:
            spans = blocks
        else:
            contents = content_spans(messages, text, tokenizer)
            if contents is None:
                return Skipped(CHANGED)
            spans = [contents[n] for n in turns]
        spans = spans[-1:] if train_on == "last" else spans
        trained = np.zeros(len(ids), bool)
        for first, last in spans:
            inside = (start >= first) & (end <= last) | _first_token(text, start, end, first, last)
            inside[_end_of_turn(text, ids, start, last, tokenizer.eos_ids)] = True
            trained |= inside
    trained[:1] = False
    kept = Example(ids[:max_length], trained[:max_length], max(0, len(ids) - max_length))
    return kept if kept.trained.any() else Skipped(NO_TRAINED_TOKEN)


def content_spans(
    messages: Sequence[Mapping[str, str]], text: str, tokenizer: TextTokenizer
) -> list[tuple[int, int]] | None:
    """Where each content lies in ``text``: [start, end) in characters; None where the template changes contents."""
    markers = [f"{_MARKS[0]}{n}{_MARKS[1]}" for n in range(len(messages))]
    replaced = [{**message, "content": marker} for message, marker in zip(messages, markers, strict=True)]
    try:
        rest = tokenizer.prompt(replaced, add_generation_prompt=False)
    except UserError:
        return None
    pieces = []  # what the template writes before each content, and after the last
    for marker in markers:
        before, found, rest = rest.partition(marker)
        if not found:
            return None
        pieces.append(before)
    contents = [str(message["content"]) for message in messages]
    return _align(text, [*pieces, rest], contents)


def _align(text: str, pieces: list[str], contents: list[str]) -> list[tuple[int, int]] | None:
    """Spans of the contents such that ``text`` is pieces and contents in turn; None where there are none.

    A template may strip a content on either side. The stripped form is a part of the whole one, so a first match can
    be wrong: the search goes back to the last choice, and each (content, position) is tried once.
    """
    dead: set[tuple[int, int]] = set()
    spans: list[tuple[int, int]] = []
    choices: list[list[tuple[int, int]]] = [_options(text, 0, pieces[0], contents[0])]
    while choices:
        n = len(choices) - 1
        if not choices[n]:
            choices.pop()
            if spans:
                dead.add((n, spans.pop()[1]))
            continue
        span = choices[n].pop(0)
        if (n + 1, span[1]) in dead:
            continue
        if n + 1 == len(contents):
            if text[span[1] :] == pieces[-1]:
                return [*spans, span]
            continue
        spans.append(span)
        choices.append(_options(text, span[1], pieces[n + 1], contents[n + 1]))
    return None


def _options(text: str, at: int, piece: str, content: str) -> list[tuple[int, int]]:
    """The spans that a content may have after a piece that stands at ``at``."""
    if not text.startswith(piece, at):
        return []
    start = at + len(piece)
    forms = dict.fromkeys((content, content.strip(), content.rstrip(), content.lstrip()))
    return [(start, start + len(form)) for form in forms if text.startswith(form, start)]


def _first_token(text: str, start: np.ndarray, end: np.ndarray, first: int, last: int) -> np.ndarray:
    """The token that begins with white space of the header and ends with visible text of the content, if there is one.

    A template that writes "[/INST] " before an answer gives the token " answer", which the model is to generate. Where
    only white space of the content has merged with the header, the token belongs to the header.
    """
    over = (start < first) & (first < end) & (end <= last)
    for n in np.flatnonzero(over).tolist():
        over[n] = not text[start[n] : first].strip() and bool(text[first : end[n]].strip())
    return over


def _end_of_turn(text: str, ids: np.ndarray, start: np.ndarray, at: int, ends: frozenset[int]) -> slice:
    """The tokens from the end of a content, at character ``at``, to the token that ends the turn, that one included.

    Only white space may stand between; otherwise the template ends the turn without a token, and nothing is added.
    """
    first = int(np.searchsorted(start, at))
    for n in range(first, len(ids)):
        if int(ids[n]) in ends:
            return slice(first, n + 1)
        following = int(start[n + 1]) if n + 1 < len(ids) else len(text)
        if text[int(start[n]) : following].strip():
            break
    return slice(first, first)


def _without_marks(rendered: str) -> tuple[str, list[tuple[int, int]]]:
    """The text without the marks of ``{% generation %}`` blocks, and the span of each block in it."""
    parts, spans, length = [], [], 0
    before, *blocks = rendered.split(GENERATION_START)
    parts.append(before)
    length += len(before)
    for block in blocks:
        inside, _, after = block.partition(GENERATION_END)
        spans.append((length, length + len(inside)))
        parts += [inside, after]
        length += len(inside) + len(after)
    return "".join(parts), spans
