"""CaR's score of an instruction with its answer (Ge et al. 2024, arXiv 2402.18191; github.com/IronBeliever/CaR at
3357044): the text "Instruction: {instruction} Input: {input} Response: {output}", and what its XLM-R says of it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mig_jax.commands.annotate.annotator import Annotator, Prepared, Rows, Said, Task
from mig_jax.commands.annotate.kept import Kept
from mig_jax.config.struct import Struct
from mig_jax.core.progress import Progress
from mig_jax.models.config import ModelConfig
from mig_jax.pool.exchanges import Exchange

if TYPE_CHECKING:  # Flax
    from mig_jax.batch import Job
    from mig_jax.models.inference.car_model import FoundScorer

SCORES = ("annotation", "CaR")


class Options(Struct, frozen=True):
    model: ModelConfig


def text_of(exchange: Exchange) -> str:
    """What the model reads; where there is no input, its place stays, between two spaces."""
    return f"Instruction: {exchange.instruction} Input: {exchange.input} Response: {exchange.output}"


@dataclass
class _Run:
    """One use of the annotator."""

    rows: Rows
    found: "FoundScorer"
    dtype: str
    batch_tokens: int
    cut: int = 0
    not_finite: int = 0
    turns: int = 0
    total: float = 0.0

    def job(self, progress: Progress) -> "Job":
        """Tokenise and plan."""
        from mig_jax.batch import Job

        found, count = self.found, int(self.rows.answered.sum())
        texts = (text_of(one) for row in self.rows.exchanges() for one in row if one.output is not None)
        tokens = found.tokenizer(texts, total=count, progress=progress)
        found.check(tokens)
        self.cut = tokens.cut
        kept = Kept(found.load, found.config.encoder)

        def run(batches: Iterable[Any]) -> Iterator[tuple[Any, np.ndarray]]:
            return kept.run(lambda model, some: model.run(tokens, some), batches)

        cut = f"CaR: {tokens.cut:,} of {count:,} turns are longer than max_length={found.max_length} tokens"
        return Job(
            plan=found.plan(tokens.length, self.batch_tokens),
            cost=tokens.length,
            run=run,
            width=1,
            blank=np.nan,
            notes=(f"{cut}; what is beyond them did not count",) if tokens.cut else (),
            flops=lambda batch: kept.flops(batch.rows, batch.width),
            flops_dtype=self.dtype,
            release=kept.release,
        )

    def say(self, results: tuple[np.ndarray, ...]) -> Iterator[Said]:
        """A list of each row, one number a turn."""
        (score_Nx1,) = results
        e = 0
        for why, answered in zip(self.rows.unanswered, self.rows.answered.tolist(), strict=True):
            score_n = score_Nx1[e : e + answered, 0].astype(np.float64)
            e += answered
            wrong = np.flatnonzero(~np.isfinite(score_n))
            self.not_finite += len(wrong)
            if why is not None:
                yield Said({}, why)
            elif len(wrong):
                yield Said({}, f"the score is not finite: turn {', '.join(str(turn + 1) for turn in wrong.tolist())}")
            else:
                self.turns += answered
                self.total += float(score_n.sum())
                yield Said({SCORES: score_n.tolist()})

    def facts(self) -> dict[str, Any]:
        """Counts and the mean for the manifest."""
        return {
            "turns": int(self.rows.answered.sum()),
            "turns_not_finite": self.not_finite,
            "turns_cut": self.cut,
            "mean": round(self.total / max(self.turns, 1), 4),
        }


def prepare(options: Options, task: Task) -> Prepared:
    """Finds the model.

    Raises:
      UserError: see ``find_car_scorer``.
    """
    from mig_jax.batch import Pass
    from mig_jax.models.configured import model_spec_of
    from mig_jax.models.inference.car_model import find_car_scorer
    from mig_jax.models.inference.packing import usual_batch_tokens

    found = find_car_scorer(model_spec_of(options.model, "car.model"), mesh=task.mesh)
    run = _Run(task.rows, found, options.model.dtype, task.batch_tokens or usual_batch_tokens())
    return Prepared((Pass("car", found.fingerprint, run.job),), None, run.say, run.facts)


CAR = Annotator(prepare, Options, writes=(SCORES,))
