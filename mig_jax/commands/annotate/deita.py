"""DEITA's complexity of a query and quality of its answer (Liu et al. 2023, arXiv 2312.15685).

Each has a model of its own, which answers with one of the digits 1 to 6: the score is the expectation of that digit,
``sum_d d exp(z_d) / sum_d exp(z_d)`` over the logits z of the six digits as the next token. Source of prompts
and formula: github.com/hkust-nlp/deita at b279f2c, deita/selection/scorer.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float64

from mig_jax.batch import BatchJob
from mig_jax.commands.annotate.annotator import Annotation, AnnotationInput, Annotator
from mig_jax.commands.annotate.prompts import Template, prompt_tokens
from mig_jax.config.struct import Struct
from mig_jax.core.errors import UserError
from mig_jax.core.progress import Progress
from mig_jax.models.config import ModelConfig
from mig_jax.pool.layouts import join_input

if TYPE_CHECKING:  # Flax
    from mig_jax.models.inference.language_model import FoundModel
    from mig_jax.models.tokenizers.text_tokenizer import TextTokenizer
    from mig_jax.models.tokenizers.tokens import Tokens

COMPLEXITY = ("annotation", "deita", "complexity_scores")
QUALITY = ("annotation", "deita", "quality_scores")
ROUNDS = ("annotation", "dialog_round")
DIGITS = "123456"
# The spaces at the ends of lines are the reference's; the models were trained with them.
PROMPTS = {
    "complexity": (
        "You are a helpful assistant. Please identify the complexity score of the following user query. \n"
        "##Query: {instruction}  \n"
        "##Complexity: "
    ),
    "quality": (
        "You are a helpful assistant. Please identify the quality score of the Response corresponding to the "
        "Question. \n"
        " #Question#:\n{instruction}\n"
        "#Response#:\n{output} \n"
        "##Quality: "
    ),
}


def digit_ids(tokenizer: "TextTokenizer", key: str, name: str) -> tuple[int, ...]:
    """The tokens of "1" to "6" as they follow other text.

    They are 29896, 29906, 29941, 29946, 29945 and 29953 of Llama-2, 28740, 28750, 28770, 28781, 28782 and 28784 of
    Mistral: the last token of each digit alone, since these tokenizers put a space token before a text.

    Args:
      key, name: the setting that names the model, for messages.

    Raises:
      UserError: two digits share a token, or one's token is not it alone.
    """
    ids = tuple(encoded[-1] if encoded else -1 for encoded in tokenizer.encode_plain(list(DIGITS)))
    wrong = [
        f"{digit!r} ends with the token {token} ({tokenizer.decode([token])!r})" if token >= 0 else f"{digit!r} is none"
        for digit, token in zip(DIGITS, ids, strict=True)
        if token < 0 or tokenizer.decode([token]).strip() != digit
    ]
    if wrong or len(set(ids)) < len(ids):
        why = "; ".join(wrong) or f"the tokens of 1 to 6 are {', '.join(map(str, ids))}"
        raise UserError(
            f"its tokenizer ({tokenizer.where}) has no token of its own for each digit: {why}", key=key, value=name
        )
    return ids


def expected_digit(logit_Nx6: Float[np.ndarray, "N 6"]) -> Float64[np.ndarray, " N"]:
    """``sum_d d softmax(z)_d``, d = 1 .. 6, in float64; NaN where a logit is not finite."""
    z_Nx6 = np.where(np.isfinite(logit_Nx6), logit_Nx6, np.nan).astype(np.float64)
    share_Nx6 = np.exp(z_Nx6 - z_Nx6.max(axis=1, keepdims=True))
    return (share_Nx6 * np.arange(1, 7)).sum(axis=1) / share_Nx6.sum(axis=1)


class DigitJob(BatchJob):
    """One of the two scores: the logits of the six digits for each answered exchange, float32 ``[E, 6]``."""

    width = len(DIGITS)

    def __init__(self, name: str, checkpoint: "FoundModel", ids: tuple[int, ...], inputs: AnnotationInput, dtype: str):
        super().__init__(
            name,
            [checkpoint.fingerprint, PROMPTS[name], checkpoint.max_length],
            checkpoint.load,
            checkpoint.config,
            flops_dtype=dtype,
        )
        self.checkpoint, self.ids, self.rows = checkpoint, ids, inputs.rows
        self.batch_tokens = inputs.usual_batch_tokens
        self.cut = 0

    def texts(self) -> Iterator[dict[str, str]]:
        """The template's texts for each answered exchange."""
        for exchange in self.rows.answered_exchanges():
            texts = {"instruction": join_input(exchange.instruction, exchange.input)}
            yield texts | ({"output": exchange.output or ""} if self.name == "quality" else {})

    def tokenize(self, progress: Progress) -> "Tokens":
        names = ("instruction", "output") if self.name == "quality" else ("instruction",)
        template = Template.parse(PROMPTS[self.name], names, f"deita.{self.name}")
        checkpoint, count = self.checkpoint, int(self.rows.answered.sum())
        tokens = prompt_tokens(
            checkpoint.tokenizer, template, self.texts(), checkpoint.max_length, total=count, progress=progress
        )
        checkpoint.check(tokens)
        self.cut = tokens.cut
        if tokens.cut:
            limit = f"max_length={checkpoint.max_length}"
            cut = f"{self.name}: {tokens.cut:,} of {count:,} turns are longer than {limit} tokens"
            self.notes = (f"{cut}; their texts were cut, the prompt was not",)
        return tokens

    def plan_batches(self, tokens: "Tokens") -> Sequence[Any]:
        from mig_jax.models.inference.packing import plan_batches

        return plan_batches(tokens.length, max_length=self.checkpoint.max_length, batch_tokens=self.batch_tokens)

    def compute(self, model: Any, tokens: "Tokens", batches: Iterable[Any]) -> Iterator[tuple[Any, np.ndarray]]:
        from mig_jax.models.inference.next_token import next_logits  # Flax

        return next_logits(model, tokens, batches, self.ids)


class Deita(Annotator):
    """Two lists for each row, one number for each answered turn, and the number of these turns."""

    class Options(Struct, frozen=True):
        complexity: ModelConfig
        quality: ModelConfig

    writes = (COMPLEXITY, QUALITY, ROUNDS)

    def __init__(self, options: Options, inputs: AnnotationInput):
        from mig_jax.models.configured import model_spec_of  # Flax
        from mig_jax.models.inference.language_model import find_language_model  # Flax

        jobs = []
        for name, config in (("complexity", options.complexity), ("quality", options.quality)):
            checkpoint = find_language_model(model_spec_of(config, f"deita.{name}"), mesh=inputs.mesh)
            ids = digit_ids(checkpoint.tokenizer, f"deita.{name}", checkpoint.name)
            if max(ids) >= checkpoint.config.vocab_size:
                raise UserError(
                    f"its tokenizer gives id {max(ids)} for a digit, its model has "
                    f"{checkpoint.config.vocab_size} words: tokenizer and weights are of different checkpoints",
                    key=f"deita.{name}",
                    value=checkpoint.name,
                )
            jobs.append(DigitJob(name, checkpoint, ids, inputs, config.dtype))
        self.rows = inputs.rows
        self.jobs = self.digit_jobs = tuple(jobs)
        self.not_finite: Counter[str] = Counter()
        self.sums: dict[str, float] = {}
        self.turns = 0

    def annotate(self, results: tuple[np.ndarray, ...]) -> Iterator[Annotation]:
        score_E = {job.name: expected_digit(logit_Ex6) for job, logit_Ex6 in zip(self.digit_jobs, results, strict=True)}
        self.not_finite.update({name: int(np.isnan(score).sum()) for name, score in score_E.items()})
        for refused, own in self.rows.answered_slices():
            if refused is not None:
                yield Annotation({}, refused)
                continue
            score_n = {name: score[own] for name, score in score_E.items()}
            wrong = [
                f"turn {turn + 1}'s {name}"
                for name, score in score_n.items()
                for turn in np.flatnonzero(np.isnan(score)).tolist()
            ]
            if wrong:
                yield Annotation({}, f"the logits of the digits are not finite: {', '.join(wrong)}")
                continue
            turns = own.stop - own.start
            self.turns += turns
            for name, score in score_n.items():
                self.sums[name] = self.sums.get(name, 0.0) + float(score.sum())
            complexity, quality = score_n["complexity"].tolist(), score_n["quality"].tolist()
            yield Annotation({COMPLEXITY: complexity, QUALITY: quality, ROUNDS: turns})

    def facts(self) -> dict[str, Any]:
        return {
            "turns": int(self.rows.answered.sum()),
            "turns_not_finite": {job.name: self.not_finite[job.name] for job in self.digit_jobs},
            "turns_cut": {job.name: job.cut for job in self.digit_jobs},
            "mean": {name: round(total / max(self.turns, 1), 4) for name, total in self.sums.items()},
        }
