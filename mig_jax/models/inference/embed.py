"""Texts -> embeddings: tokenise, pack, run the model, pool each text's states.

Letters as in packing.py and pooling.py: B rows, L tokens in a row, S texts in a row, D hidden size, N texts.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float32, Int

from mig_jax.core.errors import UserError
from mig_jax.core.progress import Progress, silent
from mig_jax.models.checkpoints.checkpoint import EmbedderSpec
from mig_jax.models.inference.fingerprint import check_embedder, prompt_of
from mig_jax.models.inference.loaded import LoadedModel, in_flight, load_weights
from mig_jax.models.inference.packing import Batch, fill, plan_batches, usual_batch_tokens
from mig_jax.models.inference.pooling import pool_segments
from mig_jax.models.networks.families import FAMILIES
from mig_jax.models.networks.sharding import constrain
from mig_jax.models.tokenizers.tokens import Tokenizer, Tokens, load_tokenizer


@dataclass(frozen=True)
class Embedder:
    """A loaded embedder; make one with ``load_embedder``.

    Args:
      spec: its settings.
      loaded: the model on the devices between which the rows of a batch are split.
      tokenizer: with the spec's max_length.
      config: the network's.
      dim: D.
      vocab_size: token ids are below it.
      max_length: tokens of a text that count.
      fingerprint: sha256 over everything that decides an embedding: weights, config, tokenizer, pooling, length.
      batch_tokens: tokens of a batch, padding included. It changes embeddings by rounding only (1e-6).
    """

    spec: EmbedderSpec
    loaded: LoadedModel
    tokenizer: Tokenizer
    config: Any
    dim: int
    vocab_size: int
    max_length: int
    fingerprint: str
    batch_tokens: int

    def embed(
        self, texts: Sequence[str], *, query: bool = False, progress: Progress = silent
    ) -> Float32[np.ndarray, "N D"]:
        """Embed texts; the same sequence of texts gives the same bytes on one backend.

        ``e_n`` is what ``pool_segments`` makes of the states of text n's tokens, divided by ``max(|e_n|, 1e-12)`` if
        the spec says normalize (sentence-transformers Transformer, Pooling, Normalize).

        Args:
          texts: N strings, truncated to max_length tokens.
          query: write the texts with the spec's instruction, where it has one.
          progress: called with the stages "tokenize" and "embed" and the number of texts done.

        Returns:
          float32 ``[N, D]``, in the order of ``texts``.

        Raises:
          UserError: an entry is not a string, the tokenizer does not belong to the weights, or those hold NaN.
        """
        tokens = self.tokenize(texts, query=query, progress=progress)
        out_NxD = np.zeros((len(texts), self.dim), np.float32)
        done = int((tokens.length == 0).sum())
        for batch, vector_nxD in self.run(tokens, self.plan(tokens)):
            out_NxD[batch.text] = vector_nxD
            done += len(batch.text)
            progress("embed", done, len(texts), "texts")
        return out_NxD

    def tokenize(
        self, texts: Iterable[str], *, query: bool = False, total: int | None = None, progress: Progress = silent
    ) -> Tokens:
        """The token ids of texts; see ``embed``, and ``Tokenizer`` for an iterator of texts."""
        prompt = prompt_of(self.spec) if query else None
        if prompt is not None and not isinstance(texts, str):
            total = len(texts) if isinstance(texts, Sequence) else total
            texts = map(prompt, texts)
        tokens = self.tokenizer(texts, total=total, progress=progress)
        if len(tokens.id) and tokens.id.max() >= self.vocab_size:
            raise UserError(
                f"embedder {self.spec.name}: its tokenizer gives id {tokens.id.max()}, its model has {self.vocab_size} "
                "words: tokenizer and weights are of different checkpoints"
            )
        return tokens

    def plan(self, tokens: Tokens, *, without: Bool[np.ndarray, " N"] | None = None) -> tuple[Batch, ...]:
        """All batches; they depend on the lengths of all texts, ``batch_tokens`` and nothing else.

        Args:
          without: texts that are in no batch, as those of no tokens are.
        """
        length_N = tokens.length if without is None else np.where(without, 0, tokens.length)
        return plan_batches(length_N, max_length=self.max_length, batch_tokens=self.batch_tokens)

    def run(self, tokens: Tokens, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Float32[np.ndarray, "n D"]]]:
        """The embeddings of some of the planned batches, in the order given: a batch and its n texts' vectors.

        The device computes the next batches while the caller uses one.
        """
        return in_flight(batches, lambda batch: self._send(batch, tokens), self._receive)

    def _send(self, batch: Batch, tokens: Tokens) -> Array:
        model = self.loaded
        with model.on_mesh():
            pooled_BxSxD = _embed_batch(
                model.graphdef,
                model.state,
                *model.rows(*fill(batch, tokens, multiple=model.row_multiple)),
                slots=batch.slots,
                pooling=self.spec.pooling,
                normalize=self.spec.normalize,
                exact=model.exact,
            )
        pooled_BxSxD.copy_to_host_async()
        return pooled_BxSxD

    def _receive(self, batch: Batch, pooled_BxSxD: Array) -> tuple[Batch, np.ndarray]:
        vector_nxD = np.asarray(pooled_BxSxD)[batch.row, batch.slot]
        if not np.isfinite(vector_nxD).all():
            raise UserError(
                f"embedder {self.spec.name}: embeddings are not finite, so its weights hold NaN or infinity"
            )
        return batch, vector_nxD


def load_embedder(
    spec: EmbedderSpec, *, batch_tokens: int | None = None, mesh: Mesh | None = None, cache: Path | None = None
) -> Embedder:
    """Find, check and load an embedder.

    Args:
      batch_tokens: see ``Embedder``; None: ``usual_batch_tokens()``.
      mesh: see ``LoadedModel``.
      cache: see ``find_checkpoint``.

    Raises:
      UserError: see ``check_embedder``, ``load_tokenizer`` and ``load_model``.
    """
    return find_embedder(spec, batch_tokens=batch_tokens, mesh=mesh, cache=cache)[1]()


def find_embedder(
    spec: EmbedderSpec, *, batch_tokens: int | None = None, mesh: Mesh | None = None, cache: Path | None = None
) -> tuple[str, Callable[[], Embedder]]:
    """An embedder's fingerprint, and a function that loads it: a caller with cached embeddings needs no weights.

    Raises:
      UserError: see ``check_embedder`` and ``load_tokenizer``.
    """
    checkpoint, config, max_length, fingerprint = check_embedder(spec, cache=cache)
    tokenizer = load_tokenizer(checkpoint.tokenizer_source, max_length, append_end=spec.append_eos)
    family = FAMILIES[checkpoint.config["model_type"]]

    def load() -> Embedder:
        return Embedder(
            spec=spec,
            loaded=load_weights(family, config, checkpoint.tensors(), spec, mesh, head=False),
            tokenizer=tokenizer,
            config=config,
            dim=config.hidden_size,
            vocab_size=config.vocab_size,
            max_length=max_length,
            fingerprint=fingerprint,
            batch_tokens=usual_batch_tokens() if batch_tokens is None else batch_tokens,
        )

    return fingerprint, load


@functools.partial(jax.jit, static_argnames=("graphdef", "slots", "pooling", "normalize", "exact"))
def _embed_batch(
    graphdef: nnx.GraphDef,
    state: nnx.State,
    id_BxL: Int[Array, "B L"],
    segment_BxL: Int[Array, "B L"],
    *,
    slots: int,
    pooling: str,
    normalize: bool,
    exact: bool = True,
) -> Float32[Array, "B S D"]:
    """Run B rows and pool each of their texts; slots without a text are zero. ``exact``: the model is float32."""
    # TPUs and GPUs round float32 products to bfloat16 or TF32 unless told not to; on a CPU this changes nothing.
    with jax.default_matmul_precision("float32" if exact else "default"):
        x_BxLxD = nnx.merge(graphdef, state)(id_BxL, segment_BxL).last_BxLxD
    with jax.default_matmul_precision("float32"):
        pooled_BxSxD = pool_segments(x_BxLxD, segment_BxL, slots=slots, pooling=pooling)
    if normalize:
        pooled_BxSxD /= jnp.maximum(jnp.linalg.norm(pooled_BxSxD, axis=-1, keepdims=True), 1e-12)
    return constrain(pooled_BxSxD, None, None, None)  # replicated: each process of a mesh can read it
