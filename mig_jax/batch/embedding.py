"""The embeddings of many texts, as a batch job."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool

from mig_jax.batch.job import BatchJob
from mig_jax.core.progress import Progress

if TYPE_CHECKING:  # Flax
    from mig_jax.models.inference.embed import Embedder
    from mig_jax.models.tokenizers.tokens import Tokens


class EmbeddingJob(BatchJob["Embedder"]):
    """The embeddings of N texts, float32 ``[N, D]``; zeros for a text that is in no batch.

    Args:
      texts: yields the texts, in order, anew at each call.
      without: returns the entries that are no text and in no batch; bool ``[N]``.
      check: raises UserError where the texts have changed since they were counted.
      key, load: as ``find_embedder`` returns them.

    Attributes:
      cut: after ``prepare``: texts that were longer than the model reads.
      facts: after ``prepare``: what decides the embedder's results, plain. mesh: its devices; None: one.
    """

    blank = 0.0

    def __init__(
        self,
        name: str,
        key: str,
        load: Callable[[], "Embedder"],
        texts: Callable[[], Iterable[str]],
        without: Callable[[], Bool[np.ndarray, " N"]],
        check: Callable[[], None] = lambda: None,
    ):
        super().__init__(name, key, load)
        self.texts, self.find_without, self.check = texts, without, check
        self.without = np.zeros(0, bool)
        self.cut = 0
        self.facts: dict[str, Any] = {}
        self.mesh: Any = None

    def tokenize(self, progress: Progress) -> "Tokens":
        embedder, self.without = self.model(), self.find_without()
        count = len(self.without)
        tokens = embedder.tokenize(self.texts(), query=True, total=count, progress=progress)
        if len(tokens.length) != count:
            self.check()
            raise AssertionError(f"{len(tokens.length)} texts came, {count} were counted")
        self.width, self.flops_dtype, self.cut = embedder.dim, embedder.spec.dtype, tokens.cut
        self.mesh = embedder.loaded.mesh
        self.facts = {
            "dim": embedder.dim,
            "embedder": embedder.fingerprint,
            "pooling": embedder.spec.pooling,
            "max_length": embedder.max_length,
            "append_eos": embedder.spec.append_eos,
            "batch_tokens": embedder.batch_tokens,
        }
        if tokens.cut:
            self.notes = (
                f"{self.name}: {tokens.cut:,} of {count:,} texts are longer than max_length={embedder.max_length} "
                "tokens; only their beginning was read",
            )
        return tokens

    def plan_batches(self, tokens: "Tokens") -> Sequence[Any]:
        return self.model().plan(tokens, without=self.without)

    def compute(self, model: "Embedder", tokens: "Tokens", batches: Iterable[Any]) -> Iterator[tuple[Any, np.ndarray]]:
        return model.run(tokens, batches)
