"""CaR's score of an instruction with its answer (Ge et al. 2024, arXiv 2402.18191; github.com/IronBeliever/CaR at
3357044): what its XLM-R makes of the text "Instruction: {instruction} Input: {input} Response: {output}"."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mig_jax.batch import BatchJob
from mig_jax.commands.annotate.annotator import Annotation, AnnotationInput, Annotator, PoolRows
from mig_jax.config.struct import Struct
from mig_jax.core.progress import Progress
from mig_jax.models.config import ModelConfig
from mig_jax.pool.exchanges import Exchange

if TYPE_CHECKING:  # Flax
    from mig_jax.models.inference.car_model import FoundScorer
    from mig_jax.models.tokenizers.tokens import Tokens

SCORES = ("annotation", "CaR")


def text_of(exchange: Exchange) -> str:
    """What the model reads; an empty input stands between two spaces."""
    return f"Instruction: {exchange.instruction} Input: {exchange.input} Response: {exchange.output}"


class CarJob(BatchJob):
    """The score of each answered exchange, float32 ``[E, 1]``."""

    def __init__(self, scorer: "FoundScorer", rows: PoolRows, batch_tokens: int, dtype: str):
        super().__init__("car", scorer.fingerprint, scorer.load, scorer.config.encoder, dtype)
        self.scorer, self.rows, self.batch_tokens = scorer, rows, batch_tokens
        self.cut = 0

    def tokenize(self, progress: Progress) -> "Tokens":
        count = int(self.rows.answered.sum())
        texts = map(text_of, self.rows.answered_exchanges())
        tokens = self.scorer.tokenizer(texts, total=count, progress=progress)
        self.scorer.check(tokens)
        self.cut = tokens.cut
        if tokens.cut:
            limit = self.scorer.max_length
            cut = f"CaR: {tokens.cut:,} of {count:,} turns are longer than max_length={limit} tokens"
            self.notes = (f"{cut}; what is beyond them did not count",)
        return tokens

    def plan_batches(self, tokens: "Tokens") -> Sequence[Any]:
        return self.scorer.plan(tokens.length, self.batch_tokens)

    def compute(self, model: Any, tokens: "Tokens", batches: Iterable[Any]) -> Iterator[tuple[Any, np.ndarray]]:
        return model.run(tokens, batches)


class Car(Annotator):
    """One number for each answered turn of a row."""

    class Options(Struct, frozen=True):
        model: ModelConfig

    writes = (SCORES,)

    def __init__(self, options: Options, inputs: AnnotationInput):
        from mig_jax.models.configured import model_spec_of  # Flax
        from mig_jax.models.inference.car_model import find_car_scorer  # Flax

        self.rows = inputs.rows
        scorer = find_car_scorer(model_spec_of(options.model, "car.model"), mesh=inputs.mesh)
        self.job = CarJob(scorer, inputs.rows, inputs.usual_batch_tokens, options.model.dtype)
        self.jobs = (self.job,)
        self.not_finite = self.turns = 0
        self.total = 0.0

    def annotate(self, results: tuple[np.ndarray, ...]) -> Iterator[Annotation]:
        (score_Ex1,) = results
        for refused, own in self.rows.answered_slices():
            score_n = score_Ex1[own, 0].astype(np.float64)
            wrong = np.flatnonzero(~np.isfinite(score_n))
            self.not_finite += len(wrong)
            if refused is not None:
                yield Annotation({}, refused)
            elif len(wrong):
                turns = ", ".join(str(turn + 1) for turn in wrong.tolist())
                yield Annotation({}, f"the score is not finite: turn {turns}")
            else:
                self.turns += len(score_n)
                self.total += float(score_n.sum())
                yield Annotation({SCORES: score_n.tolist()})

    def facts(self) -> dict[str, Any]:
        return {
            "turns": int(self.rows.answered.sum()),
            "turns_not_finite": self.not_finite,
            "turns_cut": self.job.cut,
            "mean": round(self.total / max(self.turns, 1), 4),
        }
