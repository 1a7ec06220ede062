"""Prompts -> answers: which prompts share a batch, when a row ends, and what its text is.

Batches are planned from all prompts before the first runs. A prompt's answer depends on the prompt, its place in the
input and the options; on its batch by rounding only.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Float32, Int32, Int64

from mig_jax.core.errors import UserError
from mig_jax.core.progress import Progress, silent
from mig_jax.models.inference.decoding import Draw, Live, Rule, decode, prefill
from mig_jax.models.inference.language_model import LanguageModel, as_tokens
from mig_jax.models.inference.packing import widths_upto
from mig_jax.models.tokenizers.tokens import Tokens

_STEPS = 16  # tokens between two looks at the text for stop strings
_PLACES = 64  # a cache's room for new tokens is a multiple of this: few shapes

Finished = Literal["eos", "stop", "length"]


class Generated(NamedTuple):
    """An answer.

    Args:
      text: what the tokens say, the one that ended it left out, and cut before a stop string.
      tokens: all that were chosen, up to the one that ended the text ("eos"), that completed a stop string ("stop") or
        was the last allowed ("length"); int32 ``[T]``.
      logprobs: log-probability of each, by the model's own distribution, whatever the temperature; float32 ``[T]``.
      finished: why it ended.
    """

    text: str
    tokens: Int32[np.ndarray, " T"]
    logprobs: Float32[np.ndarray, " T"]
    finished: Finished


@dataclass(frozen=True, kw_only=True)
class _Options:
    """The arguments of ``generate`` that concern tokens and batches."""

    max_new_tokens: int
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int = 0
    batch_rows: int = 16
    batch_tokens: int = 8192

    def __post_init__(self):
        wrong = [
            f"{name} must be a whole number >= {least}, not {getattr(self, name)!r}"
            for name, least in (("max_new_tokens", 1), ("seed", 0), ("batch_rows", 1), ("batch_tokens", 1))
            if not _whole(getattr(self, name), least)
        ]
        if not isinstance(self.temperature, int | float) or not 0 <= self.temperature < float("inf"):
            wrong.append(f"temperature must be a number >= 0, not {self.temperature!r}")
        if self.top_k is not None and not _whole(self.top_k, 1):
            wrong.append(f"top_k must be a whole number >= 1 or None, not {self.top_k!r}")
        if self.top_p is not None and not (isinstance(self.top_p, int | float) and 0 < self.top_p <= 1):
            wrong.append(f"top_p must be a number in (0, 1] or None, not {self.top_p!r}")
        if not all(isinstance(one, str) and one for one in self.stop):
            wrong.append(f"stop must be strings that are not empty, not {self.stop!r}")
        if wrong:
            raise UserError("generate: " + "; ".join(wrong))

    @property
    def rule(self) -> Rule:
        if self.temperature == 0:
            return Rule(greedy=True, top_k=None, nucleus=False)
        return Rule(greedy=False, top_k=self.top_k, nucleus=self.top_p is not None and self.top_p < 1)


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def generate(
    model: LanguageModel,
    prompts: Sequence[str] | Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: Sequence[str] = (),
    seed: int = 0,
    batch_rows: int = 16,
    batch_tokens: int = 8192,
    progress: Progress = silent,
) -> list[Generated]:
    """Continue each prompt until the model ends its text, a stop string appears or ``max_new_tokens`` are chosen.

    Args:
      prompts: strings, which get the tokenizer's special tokens, or lists of ids, which are taken as they are (what a
        chat template gives). An empty one stands for a text's beginning: the tokenizer's BOS.
      temperature: 0: the most likely token each time; else tokens are drawn by ``softmax(logits / temperature)``.
      top_k, top_p: draw from so many most likely tokens, and from the fewest of them that reach this probability.
      stop: an answer ends before the first of these, wherever in its text it begins.
      seed: of the draws; prompt n's are the same in any batch.
      batch_rows, batch_tokens: the most prompts of a batch, and tokens of those, padding included (but one prompt may
        have more). Others change log-probabilities by rounding only (1e-5).
      progress: told "generate" with the number of prompts done.

    Returns:
      the answers, in the order of the prompts.

    Raises:
      UserError: an option is out of range; a prompt leaves no room for ``max_new_tokens``; an empty one has no BOS.
    """
    if isinstance(prompts, str):
        raise UserError("prompts must be a list of strings, not one string")
    options = _Options(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        stop=_stops(stop),
        seed=seed,
        batch_rows=batch_rows,
        batch_tokens=batch_tokens,
    )
    tokens = _prompt_tokens(model, prompts)
    model.check(tokens, what="prompt", room=max_new_tokens)
    answers: dict[int, Generated] = {}
    for batch in plan_prompts(tokens.length, model.max_length, batch_rows, batch_tokens):
        answers |= _run(model, tokens, batch, options)
        progress("generate", len(answers), len(prompts), "prompts")
    return [answers[n] for n in range(len(prompts))]


def answer_batches(
    model: LanguageModel, tokens: Tokens, batches: Iterable["Prompts"], *, max_new_tokens: int, stop: Sequence[str] = ()
) -> Iterator[tuple["Prompts", dict[int, Generated]]]:
    """The most likely answers of some of the batches that ``plan_prompts`` made, in the order given.

    Args:
      tokens: of all prompts, each at least one.

    Yields:
      a batch, and its answers by prompt.

    Raises:
      UserError: as ``generate``.
    """
    options = _Options(max_new_tokens=max_new_tokens, stop=_stops(stop))
    model.check(tokens, what="prompt", room=max_new_tokens)
    for batch in batches:
        yield batch, _run(model, tokens, batch, options)


def _stops(stop: Sequence[str]) -> tuple[str, ...]:
    return (stop,) if isinstance(stop, str) else tuple(stop)


def _prompt_tokens(model: LanguageModel, prompts: Sequence[str] | Sequence[Sequence[int]]) -> Tokens:
    bos = model.tokenizer.bos_id
    ids: list[Sequence[int]] = [() if isinstance(one, str) else one for one in prompts]
    texts = [(n, one) for n, one in enumerate(prompts) if isinstance(one, str)]
    for (n, _), found in zip(texts, model.tokenizer.encode([one for _, one in texts]), strict=True):
        ids[n] = found
    empty = [n for n, one in enumerate(ids) if not len(one)]
    if empty and bos is None:
        raise UserError(
            f"model {model.name}: prompt {', '.join(map(str, empty))} has no tokens, and the tokenizer has none that "
            "begins a text"
        )
    return as_tokens([one if bos is None or len(one) else [bos] for one in ids])


class Prompts(NamedTuple):
    """Prompts that run together.

    Args:
      text: which; the first ``len(text)`` rows.
      rows, width: of the batch; what is left is padding.
    """

    text: Int64[np.ndarray, " n"]
    rows: int
    width: int


def plan_prompts(
    length_N: Int64[np.ndarray, " N"],
    max_length: int,
    batch_rows: int,
    batch_tokens: int,
    among: Int64[np.ndarray, " A"] | None = None,
) -> tuple[Prompts, ...]:
    """Batches of prompts of like lengths, the longest first: what does not fit into memory shows at once.

    There are at most two shapes a width, and one more: rows depend on the width alone, but for the last batch, whose
    rows are a power of two. ``among``: the prompts that are planned; None: all.
    """
    among = np.arange(len(length_N)) if among is None else among
    order = among[np.argsort(-length_N[among], kind="stable")]
    batches = []
    while len(order):
        width = next(width for width in widths_upto(max_length) if width >= length_N[order[0]])
        most = max(1, min(batch_rows, batch_tokens // width))
        rows = most if len(order) >= most else min(most, 1 << (len(order) - 1).bit_length())
        batches.append(Prompts(order[:rows], rows, width))
        order = order[rows:]
    return tuple(batches)


def _run(model: LanguageModel, tokens: Tokens, batch: Prompts, options: _Options) -> dict[int, Generated]:
    """The answers of one batch, by prompt."""
    loaded = model.loaded
    rows = -(-batch.rows // loaded.row_multiple) * loaded.row_multiple
    id_BxL, segment_BxL = np.zeros((2, rows, batch.width), np.int32)
    index_B = np.zeros(rows, np.int32)
    index_B[: len(batch.text)] = batch.text
    for row, n in enumerate(batch.text):
        length = tokens.length[n]
        id_BxL[row, batch.width - length :] = tokens.id[tokens.ptr[n] : tokens.ptr[n + 1]]
        segment_BxL[row, batch.width - length :] = 1
    end_E = np.array(sorted(model.tokenizer.eos_ids), np.int32)
    draw = Draw(
        key=jax.random.key(options.seed),
        index=index_B,
        temperature=np.float32(options.temperature),
        top_p=np.float32(1.0 if options.top_p is None else options.top_p),
    )
    fixed = {"rule": options.rule, "exact": loaded.exact}
    answers = [_Answer(model, options, set(end_E.tolist())) for _ in batch.text]
    ended_B = np.arange(rows) >= len(batch.text)
    with loaded.on_mesh():
        places = batch.width + -(-options.max_new_tokens // _PLACES) * _PLACES
        live, token_B, found_B = prefill(
            loaded.graphdef, loaded.state, *loaded.rows(id_BxL, segment_BxL), draw, end_E, places=places, **fixed
        )
        chosen_BxC, found_BxC, taken = np.asarray(token_B)[:, None], np.asarray(found_B)[:, None], 1
        while True:
            for row, answer in enumerate(answers):
                answer.take(chosen_BxC[row], found_BxC[row])
                ended_B[row] = answer.finished is not None
            if ended_B.all():
                return {int(n): answer.generated() for n, answer in zip(batch.text, answers, strict=True)}
            limit = np.int32(options.max_new_tokens)
            live, token_BxC, logprob_BxC = decode(
                loaded.graphdef, loaded.state, live, ended_B, limit, draw, end_E, steps=_STEPS, **fixed
            )
            before, taken = taken, _steps_taken(live)
            chosen_BxC, found_BxC = (np.asarray(x)[:, : taken - before] for x in (token_BxC, logprob_BxC))


def _steps_taken(live: Live) -> int:
    return int(live.step)


@dataclass
class _Answer:
    """An answer as it grows."""

    model: LanguageModel
    options: _Options
    end: set[int]
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    text: str | None = None  # as cut; until it is, the tokens say it
    finished: Finished | None = None

    def take(self, token_C: Int32[np.ndarray, " C"], found_C: Float32[np.ndarray, " C"]) -> None:
        """The next tokens of the row; those after its end are the device's, which did not know of it."""
        if self.finished is not None:
            return
        seen = len(self.tokens)
        for token, found in zip(token_C.tolist(), found_C.tolist(), strict=True):
            self.tokens.append(token)
            self.logprobs.append(found)
            if token in self.end:
                self.finished = "eos"
                break
        if self.finished is None and len(self.tokens) >= self.options.max_new_tokens:
            self.finished = "length"
        self._cut(seen)

    def _cut(self, seen: int) -> None:
        """End at the token that completes the first stop string; the first ``seen`` tokens have none."""
        if not self.options.stop or self._stop_in(self._decoded(len(self.tokens))) is None:
            return
        for count in range(seen + 1, len(self.tokens) + 1):
            text = self._decoded(count)
            at = self._stop_in(text)
            if at is not None:
                del self.tokens[count:], self.logprobs[count:]
                self.text, self.finished = text[:at], "stop"
                return

    def _decoded(self, count: int) -> str:
        """What the first ``count`` tokens say, but for the one that ends a text."""
        ids = self.tokens[:count]
        return self.model.tokenizer.decode(ids[:-1] if ids and ids[-1] in self.end else ids)

    def _stop_in(self, text: str) -> int | None:
        found = [at for at in (text.find(one) for one in self.options.stop) if at >= 0]
        return min(found, default=None)

    def generated(self) -> Generated:
        """The answer, now that it is finished."""
        assert self.finished is not None
        text = self._decoded(len(self.tokens)) if self.text is None else self.text
        return Generated(text, np.array(self.tokens, np.int32), np.array(self.logprobs, np.float32), self.finished)
