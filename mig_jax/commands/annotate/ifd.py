"""IFD: how little the instruction helps a model with the answer, in Cherry's form and in Superfiltering's.

``cherry`` (Li et al. 2023, arXiv 2308.12032): mean token loss (answer | instruction) / mean token loss (answer).
``superfiltering`` (Li et al. 2024, arXiv 2402.00530): the ratio of the perplexities, the exponentials of these means.

They also differ in the template, in the text before the answer alone, in which of its tokens count and in what is
dropped. Each follows the code of its paper, including its oddities, since the score is what that code computes:
github.com/tianyi-lab/Cherry_LLM at 01fac8d, cherry_seed/data_analysis.py and data_by_IFD.py; and
github.com/tianyi-lab/Superfiltering at f0764af, code_ifd/data_analysis.py.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Int64

from mig_jax.batch import BatchJob
from mig_jax.commands.annotate.annotator import Annotation, AnnotationInput, Annotator, PoolRows
from mig_jax.config.struct import Positive, Struct
from mig_jax.core.errors import UserError
from mig_jax.core.progress import Progress, silent
from mig_jax.models.config import ModelConfig
from mig_jax.pool.exchanges import Exchange

if TYPE_CHECKING:  # Flax
    from mig_jax.models.inference.language_model import FoundModel
    from mig_jax.models.tokenizers.tokens import Tokens

VERSION = ("ifd_score", "version")
SCORE = ("ifd_score", "content")
EMPTY = "the answer is empty"
FULL = "the prompt fills max_length"
LONG = "prompt and answer are longer than max_length"
UNCOUNTED = "no token of the answer counts"
CHUNK = 1024  # exchanges that are tokenised at once
_TASK = "Below is an instruction that describes a task"
_FURTHER = ", paired with an input that provides further context"
_WRITE = ". Write a response that appropriately completes the request.\n\n"


class Pair(NamedTuple):
    """An answer alone and after its instruction.

    Args:
      direct, conditioned: token ids of both texts.
      first_direct, first: of each, the first token whose loss counts.
      why: why there is no score; the model does not read the texts then. None: there is one.
    """

    direct: list[int]
    conditioned: list[int]
    first_direct: int
    first: int
    why: str | None


class Form(NamedTuple):
    """One of the two.

    Args:
      prompt: the text before the answer.
      alone: the text before an answer that has no prompt.
      pair: (ids of the prompt, of the answer alone, of both, of ``alone``; max_length) -> what is scored.
      ratio: (mean loss after the prompt, mean loss alone) -> the score.
      selects: whether the reference's selection takes a row of this score.
    """

    prompt: Callable[[Exchange], str]
    alone: str
    pair: Callable[[list[int], list[int], list[int], list[int], int], Pair]
    ratio: Callable[[float, float], float]
    selects: Callable[[float], bool]


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
    """Cherry's. An answer's first token is at the number of tokens that the text before it has by itself; where a token
    spans both texts, this is not exactly where the answer begins.

    As in the paper's code: the answer alone is cut to what fits after the prompt and 4 tokens, since "### Response:"
    has 4 tokens of Llama, its BOS included. It has 3 of SmolLM2, so there a cut answer has one token more than fits
    after the prompt, and such rows are dropped which Llama's tokenizer would leave in.
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

    As in the paper's code: there is no text before the answer alone, so its first token does not count there (unless
    the tokenizer begins every text with a special token), but counts after the prompt.
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
class PairTokens:
    """The two texts of each of E exchanges: 2 e is the answer alone, 2 e + 1 the answer after its prompt.

    Args:
      tokens: of N = 2 E texts; empty where there is no score.
      first: the first token of each that counts; int64 ``[N]``.
      why: exchange -> why it has no score.
    """

    tokens: "Tokens"
    first: Int64[np.ndarray, " N"]
    why: dict[int, str]

    @property
    def length(self) -> Int64[np.ndarray, " N"]:
        """Tokens of each text."""
        return self.tokens.length


def pair_tokens(
    encode: Callable[[list[str]], list[list[int]]],
    form: Form,
    exchanges: Iterable[Exchange],
    max_length: int,
    *,
    total: int | None = None,
    progress: Progress = silent,
) -> PairTokens:
    """Tokenise answered exchanges.

    Args:
      encode: texts -> their ids, with the special tokens of the tokenizer.
      max_length: tokens of prompt and answer.
      progress: counts exchanges, of ``total``.
    """
    from mig_jax.models.tokenizers.tokens import Tokens  # the tokenizers' library

    [alone] = encode([form.alone])
    ids, lengths, first, why = [np.empty(0, np.int32)], [0], list[int](), dict[int, str]()
    stream = iter(exchanges)
    while chunk := list(islice(stream, CHUNK)):
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
    tokens = Tokens(np.concatenate(ids), np.cumsum(np.array(lengths, np.int64)))
    return PairTokens(tokens, np.array(first, np.int64), why)


class LossJob(BatchJob):
    """The mean loss of the tokens that count of each text, float64 ``[2 E, 1]``."""

    dtype = np.float64

    def __init__(
        self, checkpoint: "FoundModel", form: str, max_length: int, rows: PoolRows, batch_tokens: int, dtype: str
    ):
        key = [checkpoint.fingerprint, form, max_length]
        super().__init__("ifd", key, checkpoint.load, checkpoint.config, dtype)
        self.checkpoint, self.form, self.max_length = checkpoint, FORMS[form], max_length
        self.rows, self.batch_tokens = rows, batch_tokens
        self.why: dict[int, str] = {}  # exchange -> why it has no score
        self.counted = np.zeros(0, np.int64)  # of each text, the tokens whose loss counts

    def tokenize(self, progress: Progress) -> PairTokens:
        encode, count = self.checkpoint.tokenizer.encode, int(self.rows.answered.sum())
        exchanges = self.rows.answered_exchanges()
        pairs = pair_tokens(encode, self.form, exchanges, self.max_length, total=count, progress=progress)
        self.checkpoint.check(pairs.tokens)
        self.why, self.counted = pairs.why, pairs.length - pairs.first
        if pairs.why:
            reasons = ", ".join(f"{count:,} {why}" for why, count in sorted(Counter(pairs.why.values()).items()))
            self.notes = (f"ifd: {len(pairs.why):,} of {len(pairs.first) // 2:,} exchanges have no score ({reasons})",)
        return pairs

    def plan_batches(self, tokens: PairTokens) -> Sequence[Any]:
        from mig_jax.models.inference.packing import plan_batches

        return plan_batches(tokens.length, max_length=self.max_length, batch_tokens=self.batch_tokens)

    def compute(self, model: Any, tokens: PairTokens, batches: Iterable[Any]) -> Iterator[tuple[Any, np.ndarray]]:
        from mig_jax.models.inference.logprobs import mean_losses  # Flax

        return mean_losses(model, tokens.tokens, tokens.first, batches)

    def flops(self, batch: Any) -> float | None:
        """With the map to the vocabulary, for the tokens that count."""
        vocabulary = 2 * self.checkpoint.config.hidden_size * self.checkpoint.config.vocab_size
        return (super().flops(batch) or 0.0) + vocabulary * float(self.counted[batch.text].sum())


class Ifd(Annotator):
    """The score of a row: the mean over its exchanges, or that of the first."""

    class Options(Struct, frozen=True):
        name: Literal["cherry", "superfiltering"]
        model: ModelConfig
        max_length: Positive
        turns: Literal["mean", "first"]

    writes = (VERSION, SCORE)

    def __init__(self, options: Options, inputs: AnnotationInput):
        from mig_jax.models.configured import model_spec_of  # Flax
        from mig_jax.models.inference.language_model import find_language_model  # Flax

        checkpoint = find_language_model(model_spec_of(options.model, "ifd.model"), mesh=inputs.mesh)
        if options.max_length > checkpoint.max_length:
            raise UserError(
                f"model {checkpoint.name} takes at most {checkpoint.max_length} tokens",
                key="ifd.max_length",
                value=options.max_length,
            )
        self.version, self.form = options.name, FORMS[options.name]
        self.turns = self.key = options.turns
        self.rows = inputs.rows
        self.job = LossJob(
            checkpoint, options.name, options.max_length, inputs.rows, inputs.usual_batch_tokens, options.model.dtype
        )
        self.jobs = (self.job,)
        self.unscored: Counter[str] = Counter()  # reason -> exchanges
        self.scored = self.selected = 0  # rows; those that the paper's own selection takes

    def annotate(self, results: tuple[np.ndarray, ...]) -> Iterator[Annotation]:
        (loss_Nx1,) = results
        for refused, own in self.rows.answered_slices():
            if refused is not None:
                yield Annotation({}, refused)
                continue
            scores = [
                exchange_score(self.form, loss_Nx1[2 * e : 2 * e + 2, 0].tolist(), self.job.why.get(e))
                for e in range(own.start, own.stop)
            ]
            self.unscored.update(score for score in scores if isinstance(score, str))
            yield self._of_row(scores[:1] if self.turns == "first" else scores)

    def _of_row(self, scores: Sequence[float | str]) -> Annotation:
        numbers = [score for score in scores if not isinstance(score, str)]
        if not numbers:
            more = f": the first of {len(scores)} turns" if len(scores) > 1 else ""
            return Annotation({}, f"{scores[0]}{more}")
        mean = math.fsum(numbers) / len(numbers)
        self.scored += 1
        self.selected += self.form.selects(mean)
        return Annotation({VERSION: self.version, SCORE: mean})

    def facts(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "exchanges": int(self.rows.answered.sum()),
            "exchanges_without_a_score": dict(sorted(self.unscored.items())),
            "rows_that_its_selection_keeps": self.selected,
            "rows_that_it_drops": self.scored - self.selected,
        }


def exchange_score(form: Form, losses: Sequence[float], why: str | None) -> float | str:
    """The score of an exchange, or why it has none.

    Args:
      losses: mean loss of the answer alone, and after its prompt.
      why: known already.
    """
    if why is not None:
        return why
    alone, after = losses
    try:
        score = form.ratio(after, alone)
    except (ZeroDivisionError, OverflowError):
        score = math.nan
    return score if math.isfinite(score) else "the losses give no number"
