"""IFD: how little the instruction helps a model with the answer, in Cherry's form and in Superfiltering's.

``cherry`` (Li et al. 2023, arXiv 2308.12032): mean token loss (answer | instruction) / mean token loss (answer).
``superfiltering`` (Li et al. 2024, arXiv 2402.00530): the ratio of the perplexities, the exponentials of these means.

They differ in more than that: in the template, in what stands before the answer alone, in which of its tokens count
and in what is dropped. Each is as the code of its paper has it, its oddities too, since the score is what that code
computes: github.com/tianyi-lab/Cherry_LLM at 01fac8d, cherry_seed/data_analysis.py and data_by_IFD.py; and
github.com/tianyi-lab/Superfiltering at f0764af, code_ifd/data_analysis.py.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Int64

from mig_jax.commands.annotate.annotator import Annotator, Prepared, Rows, Said, Task
from mig_jax.commands.annotate.kept import Kept
from mig_jax.config.struct import Positive, Struct
from mig_jax.core.errors import UserError
from mig_jax.core.progress import Progress, silent
from mig_jax.models.config import ModelConfig
from mig_jax.pool.exchanges import Exchange

if TYPE_CHECKING:  # Flax
    from mig_jax.batch import Job
    from mig_jax.models.inference.language_model import FoundModel
    from mig_jax.models.tokenizers.tokens import Tokens

VERSION = ("ifd_score", "version")
SCORE = ("ifd_score", "content")
EMPTY = "the answer is empty"
FULL = "the prompt fills max_length"
LONG = "prompt and answer are longer than max_length"
UNCOUNTED = "no token of the answer counts"
AT_ONCE = 1024  # exchanges given to the tokenizer at once
_TASK = "Below is an instruction that describes a task"
_FURTHER = ", paired with an input that provides further context"
_WRITE = ". Write a response that appropriately completes the request.\n\n"


class Options(Struct, frozen=True):
    name: Literal["cherry", "superfiltering"]
    model: ModelConfig
    max_length: Positive
    turns: Literal["mean", "first"]


class Pair(NamedTuple):
    """An answer alone and after its instruction.

    Args:
      direct, conditioned: token ids of both texts.
      first_direct, first: of each, the first token whose loss counts.
      why: the reason why there is no score; the texts are not run then. None: there is one.
    """

    direct: list[int]
    conditioned: list[int]
    first_direct: int
    first: int
    why: str | None


class Form(NamedTuple):
    """One of the two.

    Args:
      prompt: what stands before the answer.
      alone: what stands before it where it stands alone.
      pair: (ids of the prompt, of the answer alone, of both, of ``alone``; max_length) -> what is scored.
      ratio: (mean loss after the prompt, mean loss alone) -> the score.
      kept: whether the reference's selection keeps a row of this score.
    """

    prompt: Callable[[Exchange], str]
    alone: str
    pair: Callable[[list[int], list[int], list[int], list[int], int], Pair]
    ratio: Callable[[float, float], float]
    kept: Callable[[float], bool]


def alpaca_prompt(exchange: Exchange) -> str:
    """The template of Alpaca, with the input where there is one."""
    head = _TASK + (_FURTHER if exchange.input else "") + _WRITE
    middle = f"### Input:\n{exchange.input}\n\n" if exchange.input else ""
    return f"{head}### Instruction:\n{exchange.instruction}\n\n{middle}### Response:"


def bare_prompt(exchange: Exchange) -> str:
    """Superfiltering's: the instruction, the input where there is one, each with its line break."""
    return f"{exchange.instruction}\n{exchange.input}\n" if exchange.input else f"{exchange.instruction}\n"


def cherry_pair(
    prompt: list[int], direct: list[int], conditioned: list[int], alone: list[int], max_length: int
) -> Pair:
    """Cherry's. An answer's first token is the one with the number of tokens that the text before it has by itself;
    where tokens join across the border, that is not quite where the answer begins.

    Odd, and kept: the answer alone is cut to what fits after the prompt and 4 tokens, since "### Response:" is 4 of
    Llama's with its BOS. It is 3 of SmolLM2's, so there a cut answer has one token more than fits after the prompt, and
    such rows are dropped where Llama's would stay.
    """
    length, empty = min(len(prompt), max_length), len(direct) <= len(alone)
    direct, conditioned = direct[: max(0, max_length - length + 4)], conditioned[:max_length]
    first_direct, first, why = len(alone), len(prompt), None
    if empty:
        why = EMPTY
    elif length >= max_length:
        why = FULL
    elif len(direct) <= first_direct or len(conditioned) <= first:
        why = UNCOUNTED
    elif length + len(direct) - first_direct > max_length:
        why = LONG
    return Pair(direct, conditioned, first_direct, first, why)


def superfiltering_pair(
    prompt: list[int], direct: list[int], conditioned: list[int], alone: list[int], max_length: int
) -> Pair:
    """Superfiltering's.

    Odd, and kept: nothing stands before the answer alone, so that its first token does not count there (unless the
    tokenizer begins a text with a token of its own), but does after the prompt.
    """
    length, empty = min(len(prompt), max_length), len(direct) <= len(alone)
    direct, conditioned = direct[: max_length - length + 1], conditioned[:max_length]
    first, why = len(prompt), None
    if empty:
        why = EMPTY
    elif length >= max_length:
        why = FULL
    elif len(direct) < 2 or len(conditioned) <= first:
        why = UNCOUNTED
    return Pair(direct, conditioned, 1, first, why)


FORMS = {
    "cherry": Form(alpaca_prompt, "### Response:", cherry_pair, lambda after, alone: after / alone, lambda x: x <= 1),
    "superfiltering": Form(
        bare_prompt, "", superfiltering_pair, lambda after, alone: math.exp(after - alone), lambda x: x < 1
    ),
}


@dataclass(frozen=True)
class Texts:
    """The two texts of each of E exchanges: 2 e is the answer alone, 2 e + 1 the answer after its prompt.

    Args:
      tokens: empty where there is no score.
      first: the first token of each that counts; int64 ``[2 E]``.
      why: exchange -> why it has no score.
    """

    tokens: "Tokens"
    first: Int64[np.ndarray, " N"]
    why: dict[int, str]


def texts_of(
    encode: Callable[[list[str]], list[list[int]]],
    form: Form,
    exchanges: Iterable[Exchange],
    max_length: int,
    *,
    total: int | None = None,
    progress: Progress = silent,
) -> Texts:
    """Tokenise answered exchanges.

    Args:
      encode: texts -> their ids, with the special tokens of the tokenizer.
      max_length: tokens of prompt and answer.
      progress: told "tokenize" with the number of exchanges done, of ``total``.
    """
    from mig_jax.models.tokenizers.tokens import Tokens

    [alone] = encode([form.alone])
    ids, lengths, first, why = [np.empty(0, np.int32)], [0], list[int](), dict[int, str]()
    stream = iter(exchanges)
    while chunk := list(islice(stream, AT_ONCE)):
        prompts, answers = [form.prompt(one) for one in chunk], [one.output or "" for one in chunk]
        parts = (prompts, [form.alone + one for one in answers], [p + a for p, a in zip(prompts, answers, strict=True)])
        for prompt, direct, conditioned in zip(*(encode(part) for part in parts), strict=True):
            pair = form.pair(prompt, direct, conditioned, alone, max_length)
            if pair.why is not None:
                why[len(first) // 2] = pair.why
            for text in (pair.direct, pair.conditioned):
                ids.append(np.array(text if pair.why is None else [], np.int32))
                lengths.append(len(ids[-1]))
            first += pair.first_direct, pair.first
        progress("tokenize", len(first) // 2, total, "exchanges")
    return Texts(Tokens(np.concatenate(ids), np.cumsum(np.array(lengths, np.int64))), np.array(first, np.int64), why)


@dataclass
class _Run:
    """One use of the annotator: what it tokenised, what it counted."""

    options: Options
    rows: Rows
    found: "FoundModel"
    batch_tokens: int
    why: dict[int, str] = field(default_factory=dict)  # of exchanges; kept when the texts are let go
    unscored: Counter[str] = field(default_factory=Counter)
    scored: int = 0
    kept: int = 0

    @property
    def form(self) -> Form:
        return FORMS[self.options.name]

    def job(self, progress: Progress) -> "Job":
        """Tokenise and plan."""
        from mig_jax.batch import Job
        from mig_jax.models.inference.logprobs import mean_losses
        from mig_jax.models.inference.packing import plan_batches

        texts, kept = self.tokenised(progress), Kept(self.found.load, self.found.config)
        self.why = texts.why
        self.found.check(texts.tokens)
        words = 2 * self.found.config.hidden_size * self.found.config.vocab_size  # a map to the vocabulary

        def run(batches: Iterable[Any]) -> Iterator[tuple[Any, np.ndarray]]:
            return kept.run(lambda model, some: mean_losses(model, texts.tokens, texts.first, some), batches)

        def flops(batch: Any) -> float:
            counted = (texts.tokens.length - texts.first)[batch.text].sum()
            return kept.flops(batch.rows, batch.width) + words * float(counted)

        length_N, most = texts.tokens.length, self.options.max_length
        plan = plan_batches(length_N, max_length=most, batch_tokens=self.batch_tokens)
        return Job(
            plan=plan,
            cost=length_N,
            run=run,
            width=1,
            dtype=np.float64,
            blank=np.nan,
            notes=self._notes(texts),
            flops=flops,
            flops_dtype=self.options.model.dtype,
            release=kept.release,
        )

    def tokenised(self, progress: Progress = silent) -> Texts:
        """The texts of all answered exchanges."""
        answered = (one for row in self.rows.exchanges() for one in row if one.output is not None)
        total, encode = int(self.rows.answered.sum()), self.found.tokenizer.encode
        return texts_of(encode, self.form, answered, self.options.max_length, total=total, progress=progress)

    def _notes(self, texts: Texts) -> tuple[str, ...]:
        if not texts.why:
            return ()
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(Counter(texts.why.values()).items()))
        return (f"ifd: {len(texts.why):,} of {len(texts.first) // 2:,} exchanges have no score ({reasons})",)

    def say(self, results: tuple[np.ndarray, ...]) -> Iterator[Said]:
        """The score of each row."""
        (loss_Nx1,) = results
        e = 0
        for why, answered in zip(self.rows.unanswered, self.rows.answered.tolist(), strict=True):
            here = range(e, e + answered)
            e += answered
            if why is not None:
                yield Said({}, why)
                continue
            found = [self._score(loss_Nx1[2 * one : 2 * one + 2, 0].tolist(), self.why.get(one)) for one in here]
            self.unscored.update(one for one in found if isinstance(one, str))
            yield self._of_row(found[:1] if self.options.turns == "first" else found)

    def _score(self, losses: Sequence[float], why: str | None) -> float | str:
        """Of an exchange; or why it has none."""
        if why is not None:
            return why
        alone, after = losses
        try:
            score = self.form.ratio(after, alone)
        except (ZeroDivisionError, OverflowError):
            score = math.nan
        return score if math.isfinite(score) else "the losses give no number"

    def _of_row(self, found: Sequence[float | str]) -> Said:
        scores = [one for one in found if not isinstance(one, str)]
        if not scores:
            return Said({}, str(found[0]) + (f": the first of {len(found)} turns" if len(found) > 1 else ""))
        mean = math.fsum(scores) / len(scores)
        self.scored += 1
        self.kept += self.form.kept(mean)
        return Said({VERSION: self.options.name, SCORE: mean})

    def facts(self) -> dict[str, Any]:
        """Counts for the manifest."""
        return {
            "version": self.options.name,
            "exchanges": int(self.rows.answered.sum()),
            "exchanges_without_a_score": dict(sorted(self.unscored.items())),
            "rows_that_its_selection_keeps": self.kept,
            "rows_that_it_drops": self.scored - self.kept,
        }


def prepare(options: Options, task: Task) -> Prepared:
    """Finds the model.

    Raises:
      UserError: see ``find_language_model``; ifd.max_length is beyond the model's.
    """
    from mig_jax.batch import Pass
    from mig_jax.models.configured import model_spec_of
    from mig_jax.models.inference.language_model import find_language_model
    from mig_jax.models.inference.packing import usual_batch_tokens

    found = find_language_model(model_spec_of(options.model, "ifd.model"), mesh=task.mesh)
    if options.max_length > found.max_length:
        raise UserError(
            f"ifd.max_length={options.max_length}: model {found.name} takes at most {found.max_length} tokens"
        )
    run = _Run(options, task.rows, found, task.batch_tokens or usual_batch_tokens())
    made = Pass("ifd", [found.fingerprint, options.name, options.max_length], run.job)
    return Prepared((made,), options.turns, run.say, run.facts)


IFD = Annotator(prepare, Options, writes=(VERSION, SCORE))
