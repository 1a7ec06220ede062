"""Generate answers to prompts: plan batches of prompts, detect the end of each answer, decode its text.

Batches are planned from all prompts before the first runs. An answer depends on its prompt, the prompt's index in the
input and the options; on the other prompts of its batch by rounding only.
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

_STEPS = 16  # tokens between two searches for stop strings
_CACHE_MULTIPLE = 64  # a cache's capacity for new tokens is a multiple of this, so that there are few shapes

Finished = Literal["eos", "stop", "length"]


class Generated(NamedTuple):
    """An answer.

    Args:
      text: the decoded tokens, without the end token, cut before a stop string.
      tokens: all chosen tokens, including the end token ("eos"), the token that completes a stop string ("stop") or the
        last allowed token ("length"); int32 ``[T]``.
      logprobs: the log-probability of each under the model's own distribution (temperature 1); float32 ``[T]``.
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
        problems = [
            f"{name} must be a whole number >= {minimum}, not {getattr(self, name)!r}"
            for name, minimum in (("max_new_tokens", 1), ("seed", 0), ("batch_rows", 1), ("batch_tokens", 1))
            if not _whole(getattr(self, name), minimum)
        ]
        if not isinstance(self.temperature, int | float) or not 0 <= self.temperature < float("inf"):
            problems.append(f"temperature must be a number >= 0, not {self.temperature!r}")
        if self.top_k is not None and not _whole(self.top_k, 1):
            problems.append(f"top_k must be a whole number >= 1 or None, not {self.top_k!r}")
        if self.top_p is not None and not (isinstance(self.top_p, int | float) and 0 < self.top_p <= 1):
            problems.append(f"top_p must be a number in (0, 1] or None, not {self.top_p!r}")
        if not all(isinstance(text, str) and text for text in self.stop):
            problems.append(f"stop must be non-empty strings, not {self.stop!r}")
        if problems:
            raise UserError("; ".join(problems), where="generate")

    @property
    def rule(self) -> Rule:
        if self.temperature == 0:
            return Rule(greedy=True, top_k=None, nucleus=False)
        return Rule(greedy=False, top_k=self.top_k, nucleus=self.top_p is not None and self.top_p < 1)


def _whole(value: object, minimum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum


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
      prompts: strings, to which the tokenizer adds its special tokens; or lists of ids, used as they are (such as
        rendered chat templates). An empty prompt becomes the tokenizer's BOS.
      temperature: 0: always the most likely token; else tokens are sampled from ``softmax(logits / temperature)``.
      top_k, top_p: sample from the ``top_k`` most likely tokens, and from the smallest set of them with probability
        ``top_p``.
      stop: an answer ends before the first occurrence of one of these strings.
      seed: of the random numbers; those of a prompt do not depend on its batch.
      batch_rows, batch_tokens: the maximum number of prompts in a batch, and of their tokens, padding included (a
        single prompt may have more). Log-probabilities depend on them by rounding only (1e-5).
      progress: called with the number of prompts done, in the stage "generate".

    Returns:
      the answers, in the order of the prompts.

    Raises:
      UserError: an option is out of range; a prompt leaves no room for ``max_new_tokens``; a prompt is empty and the
        tokenizer has no BOS.
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
    """The most likely answers of some batches of ``plan_prompts``, in the order of ``batches``.

    Args:
      tokens: of all prompts; each has at least one token.

    Yields:
      a batch, and its answers by prompt.

    Raises:
      UserError: as in ``generate``.
    """
    options = _Options(max_new_tokens=max_new_tokens, stop=_stops(stop))
    model.check(tokens, what="prompt", room=max_new_tokens)
    for batch in batches:
        yield batch, _run(model, tokens, batch, options)


def _stops(stop: Sequence[str]) -> tuple[str, ...]:
    return (stop,) if isinstance(stop, str) else tuple(stop)


def _prompt_tokens(model: LanguageModel, prompts: Sequence[str] | Sequence[Sequence[int]]) -> Tokens:
    bos = model.tokenizer.bos_id
    ids: list[Sequence[int]] = [() if isinstance(prompt, str) else prompt for prompt in prompts]
    texts = {n: prompt for n, prompt in enumerate(prompts) if isinstance(prompt, str)}
    for n, encoded in zip(texts, model.tokenizer.encode(list(texts.values())), strict=True):
        ids[n] = encoded
    empty = [n for n, prompt in enumerate(ids) if not len(prompt)]
    if empty and bos is None:
        raise UserError(
            f"prompt {', '.join(map(str, empty))} has no tokens, and the tokenizer has no BOS",
            where=f"model {model.name}",
        )
    return as_tokens([prompt if bos is None or len(prompt) else [bos] for prompt in ids])


class Prompts(NamedTuple):
    """A batch of prompts.

    Args:
      text: the indices of the prompts, which are the first ``len(text)`` rows.
      rows, width: of the batch; the other rows are padding.
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
    """Plan batches of prompts of similar lengths, the longest first: if a batch exceeds the memory, it is the first.

    There are at most two shapes per width, and one more: the number of rows depends on the width only, except that in
    the last batch it is a power of two. ``among``: the indices of the prompts to plan; None: all.
    """
    among = np.arange(len(length_N)) if among is None else among
    order = among[np.argsort(-length_N[among], kind="stable")]
    batches = []
    while len(order):
        width = next(width for width in widths_upto(max_length) if width >= length_N[order[0]])
        limit = max(1, min(batch_rows, batch_tokens // width))
        rows = limit if len(order) >= limit else min(limit, 1 << (len(order) - 1).bit_length())
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
        cache_length = batch.width + -(-options.max_new_tokens // _CACHE_MULTIPLE) * _CACHE_MULTIPLE
        live, token_B, logprob_B = prefill(
            loaded.graphdef,
            loaded.state,
            *loaded.rows(id_BxL, segment_BxL),
            draw,
            end_E,
            cache_length=cache_length,
            **fixed,
        )
        token_BxC, logprob_BxC, steps = np.asarray(token_B)[:, None], np.asarray(logprob_B)[:, None], 1
        while True:
            for row, answer in enumerate(answers):
                answer.append(token_BxC[row], logprob_BxC[row])
                ended_B[row] = answer.finished is not None
            if ended_B.all():
                return {int(n): answer.generated() for n, answer in zip(batch.text, answers, strict=True)}
            limit = np.int32(options.max_new_tokens)
            live, token_BxC, logprob_BxC = decode(
                loaded.graphdef, loaded.state, live, ended_B, limit, draw, end_E, steps=_STEPS, **fixed
            )
            before, steps = steps, _steps_done(live)
            token_BxC, logprob_BxC = (np.asarray(x)[:, : steps - before] for x in (token_BxC, logprob_BxC))


def _steps_done(live: Live) -> int:
    return int(live.step)


@dataclass
class _Answer:
    """An answer under construction."""

    model: LanguageModel
    options: _Options
    end: set[int]
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    text: str | None = None  # the text before a stop string; None: decode the tokens
    finished: Finished | None = None

    def append(self, token_C: Int32[np.ndarray, " C"], logprob_C: Float32[np.ndarray, " C"]) -> None:
        """Append the next tokens of the row; tokens that the device chose after the end are ignored."""
        if self.finished is not None:
            return
        seen = len(self.tokens)
        for token, logprob in zip(token_C.tolist(), logprob_C.tolist(), strict=True):
            self.tokens.append(token)
            self.logprobs.append(logprob)
            if token in self.end:
                self.finished = "eos"
                break
        if self.finished is None and len(self.tokens) >= self.options.max_new_tokens:
            self.finished = "length"
        self._cut(seen)

    def _cut(self, seen: int) -> None:
        """End at the token that completes the first stop string; the first ``seen`` tokens contain none."""
        if not self.options.stop or self._stop_in(self._decoded(len(self.tokens))) is None:
            return
        for count in range(seen + 1, len(self.tokens) + 1):
            text = self._decoded(count)
            start = self._stop_in(text)
            if start is not None:
                del self.tokens[count:], self.logprobs[count:]
                self.text, self.finished = text[:start], "stop"
                return

    def _decoded(self, count: int) -> str:
        """The text of the first ``count`` tokens, without an end token."""
        ids = self.tokens[:count]
        return self.model.tokenizer.decode(ids[:-1] if ids and ids[-1] in self.end else ids)

    def _stop_in(self, text: str) -> int | None:
        starts = [start for start in (text.find(stop) for stop in self.options.stop) if start >= 0]
        return min(starts, default=None)

    def generated(self) -> Generated:
        """The finished answer."""
        assert self.finished is not None
        text = self._decoded(len(self.tokens)) if self.text is None else self.text
        return Generated(text, np.array(self.tokens, np.int32), np.array(self.logprobs, np.float32), self.finished)
