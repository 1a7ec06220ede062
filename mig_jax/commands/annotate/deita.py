"""DEITA's complexity of a query and quality of its answer (Liu et al. 2023, arXiv 2312.15685).

Each is asked of a model of its own, which answers with one of the digits 1 to 6: the score is the expectation of that
digit, ``sum_d d exp(z_d) / sum_d exp(z_d)`` over the logits z of the six digits as the next token. Source of prompts
and formula: github.com/hkust-nlp/deita at b279f2c, deita/selection/scorer.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float64

from mig_jax.commands.annotate.annotator import Annotator, Prepared, Rows, Said, Task
from mig_jax.commands.annotate.kept import Kept
from mig_jax.config.struct import Struct
from mig_jax.core.errors import UserError
from mig_jax.core.progress import Progress
from mig_jax.models.config import ModelConfig
from mig_jax.pool.layouts import joined

if TYPE_CHECKING:  # Flax
    from mig_jax.batch import Job
    from mig_jax.models.inference.language_model import FoundModel
    from mig_jax.models.tokenizers.text_tokenizer import TextTokenizer

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


class Options(Struct, frozen=True):
    complexity: ModelConfig
    quality: ModelConfig


def digit_ids(tokenizer: "TextTokenizer", what: str) -> tuple[int, ...]:
    """The tokens of "1" to "6" as they follow other text.

    They are 29896, 29906, 29941, 29946, 29945 and 29953 of Llama-2, 28740, 28750, 28770, 28781, 28782 and 28784 of
    Mistral: of each digit alone, its last token, since these put a space of its own before a text.

    Args:
      what: names the model in messages.

    Raises:
      UserError: two digits share a token, or one's token is not it alone.
    """
    ids = tuple(found[-1] if found else -1 for found in tokenizer.encode_plain(list(DIGITS)))
    wrong = [
        f"{digit!r} ends with the token {token} ({tokenizer.decode([token])!r})" if token >= 0 else f"{digit!r} is none"
        for digit, token in zip(DIGITS, ids, strict=True)
        if token < 0 or tokenizer.decode([token]).strip() != digit
    ]
    if wrong or len(set(ids)) < len(ids):
        why = "; ".join(wrong) or f"the tokens of 1 to 6 are {', '.join(map(str, ids))}"
        raise UserError(f"{what}: its tokenizer ({tokenizer.where}) has no token of its own for each digit: {why}")
    return ids


def expected_digit(logit_Nx6: Float[np.ndarray, "N 6"]) -> Float64[np.ndarray, " N"]:
    """``sum_d d softmax(z)_d``, d = 1 .. 6, in float64; NaN where a logit is not finite."""
    z_Nx6 = np.where(np.isfinite(logit_Nx6), logit_Nx6, np.nan).astype(np.float64)
    share_Nx6 = np.exp(z_Nx6 - z_Nx6.max(axis=1, keepdims=True))
    return (share_Nx6 * np.arange(1, 7)).sum(axis=1) / share_Nx6.sum(axis=1)


@dataclass
class _Scores:
    """One of the two passes: a score of each answered exchange."""

    name: str
    dtype: str
    found: "FoundModel"
    ids: tuple[int, ...]
    rows: Rows
    batch_tokens: int
    cut: int = 0

    def texts(self) -> Iterator[dict[str, str]]:
        """What stands in the places of the template."""
        for row in self.rows.exchanges():
            for one in row:
                if one.output is not None:
                    query = joined(one.instruction, one.input)
                    yield {"instruction": query} | ({"output": one.output} if self.name == "quality" else {})

    def job(self, progress: Progress) -> "Job":
        """Tokenise and plan."""
        from mig_jax.batch import Job
        from mig_jax.commands.annotate.prompts import Template, prompt_tokens
        from mig_jax.models.inference.next_token import next_logits
        from mig_jax.models.inference.packing import plan_batches

        places = ("instruction", "output") if self.name == "quality" else ("instruction",)
        template = Template.of(PROMPTS[self.name], places, f"deita.{self.name}")
        found, total = self.found, int(self.rows.answered.sum())
        tokens = prompt_tokens(
            found.tokenizer, template, self.texts(), found.max_length, total=total, progress=progress
        )
        found.check(tokens)
        self.cut = tokens.cut
        kept = Kept(found.load, found.config)

        def run(batches: Iterable[Any]) -> Iterator[tuple[Any, np.ndarray]]:
            return kept.run(lambda model, some: next_logits(model, tokens, some, self.ids), batches)

        cut = f"{self.name}: {tokens.cut:,} of {total:,} turns are longer than max_length={found.max_length} tokens"
        return Job(
            plan=plan_batches(tokens.length, max_length=found.max_length, batch_tokens=self.batch_tokens),
            cost=tokens.length,
            run=run,
            width=len(DIGITS),
            blank=np.nan,
            notes=(f"{cut}; their texts were cut, the prompt was not",) if tokens.cut else (),
            flops=lambda batch: kept.flops(batch.rows, batch.width),
            flops_dtype=self.dtype,
            release=kept.release,
        )


@dataclass
class _Run:
    """One use of the annotator."""

    rows: Rows
    passes: tuple[_Scores, ...]
    not_finite: Counter[str] = field(default_factory=Counter)
    sums: dict[str, float] = field(default_factory=dict)
    turns: int = 0

    def say(self, results: tuple[np.ndarray, ...]) -> Iterator[Said]:
        """Two lists of each row, one number a turn."""
        found = {one.name: expected_digit(logits) for one, logits in zip(self.passes, results, strict=True)}
        self.not_finite.update({name: int(np.isnan(score_E).sum()) for name, score_E in found.items()})
        e = 0
        for why, answered in zip(self.rows.unanswered, self.rows.answered.tolist(), strict=True):
            here = slice(e, e + answered)
            e += answered
            if why is not None:
                yield Said({}, why)
                continue
            scores = {name: score_E[here] for name, score_E in found.items()}
            wrong = [
                f"turn {turn + 1}'s {name}"
                for name, score_n in scores.items()
                for turn in np.flatnonzero(np.isnan(score_n)).tolist()
            ]
            if wrong:
                yield Said({}, f"the logits of the digits are not finite: {', '.join(wrong)}")
                continue
            self.turns += answered
            for name, score_n in scores.items():
                self.sums[name] = self.sums.get(name, 0.0) + float(score_n.sum())
            yield Said(
                {
                    COMPLEXITY: scores["complexity"].tolist(),
                    QUALITY: scores["quality"].tolist(),
                    ROUNDS: answered,
                }
            )

    def facts(self) -> dict[str, Any]:
        """Counts and means for the manifest."""
        return {
            "turns": int(self.rows.answered.sum()),
            "turns_not_finite": {one.name: self.not_finite[one.name] for one in self.passes},
            "turns_cut": {one.name: one.cut for one in self.passes},
            "mean": {name: round(total / max(self.turns, 1), 4) for name, total in self.sums.items()},
        }


def prepare(options: Options, task: Task) -> Prepared:
    """Finds both models and the tokens of their digits.

    Raises:
      UserError: see ``find_language_model`` and ``digit_ids``.
    """
    from mig_jax.batch import Pass
    from mig_jax.models.configured import model_spec_of
    from mig_jax.models.inference.language_model import find_language_model
    from mig_jax.models.inference.packing import usual_batch_tokens

    passes = []
    for name, config in (("complexity", options.complexity), ("quality", options.quality)):
        found = find_language_model(model_spec_of(config, f"deita.{name}"), mesh=task.mesh)
        ids = digit_ids(found.tokenizer, f"deita.{name}={found.name}")
        if max(ids) >= found.config.vocab_size:
            raise UserError(
                f"deita.{name}={found.name}: its tokenizer gives id {max(ids)} for a digit, its model has "
                f"{found.config.vocab_size} words: tokenizer and weights are of different checkpoints"
            )
        batch_tokens = task.batch_tokens or usual_batch_tokens()
        passes.append(_Scores(name, config.dtype, found, ids, task.rows, batch_tokens))
    run = _Run(task.rows, tuple(passes))
    made = tuple(
        Pass(one.name, [one.found.fingerprint, PROMPTS[one.name], one.found.max_length], one.job) for one in passes
    )
    return Prepared(made, None, run.say, run.facts)


DEITA = Annotator(prepare, Options, writes=(COMPLEXITY, QUALITY, ROUNDS))
