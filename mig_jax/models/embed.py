"""Texts -> embeddings: tokenise, pack, run the encoder, pool each text's states.

Letters as in encoder.py and packing.py: B rows, L tokens in a row, S texts in a row, D hidden size, N texts.
"""

import functools
import hashlib
import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32, Int

from mig_jax.errors import UserError
from mig_jax.models.checkpoint import EmbedderSpec, find_checkpoint, sha256_file
from mig_jax.models.families import ENCODERS
from mig_jax.models.packing import fill, plan_batches
from mig_jax.models.tokens import Tokenizer, load_tokenizer
from mig_jax.models.weights import load_model
from mig_jax.runtime.progress import Progress, silent

_IN_FLIGHT = 4  # batches sent to the device before the first of them is waited for


@dataclass(frozen=True)
class Embedder:
    """A loaded embedder; make one with ``load_embedder``.

    Args:
      spec: what was asked for.
      graphdef, state: the encoder, split; the state goes into the compiled function as an argument.
      tokenizer: with the spec's max_length.
      dim: D.
      vocab_size: token ids are below it.
      fingerprint: sha256 over everything that decides an embedding: weights, config, tokenizer, pooling, length.
      batch_tokens: tokens of a batch, padding included. 1,024 is where two CPU cores reach their peak (200 GFLOP/s);
        an accelerator wants more. Another value changes embeddings by rounding only (1e-6).
    """

    spec: EmbedderSpec
    graphdef: nnx.GraphDef
    state: nnx.State
    tokenizer: Tokenizer
    dim: int
    vocab_size: int
    fingerprint: str
    batch_tokens: int = 1024

    def embed(self, texts: Sequence[str], *, progress: Progress = silent) -> Float32[np.ndarray, "N D"]:
        """Embed texts; the same sequence of texts gives the same bytes on one backend.

        ``e_n = sum_t h_nt / T_n`` over the T_n tokens of text n ("mean"), or ``h_n0`` ("cls"); divided by
        ``max(|e_n|, 1e-12)`` if the spec says normalize (sentence-transformers Transformer, Pooling, Normalize).

        Args:
          texts: N strings; what is beyond max_length tokens does not count.
          progress: told "tokenize" and "embed" with the number of texts done.

        Returns:
          float32 ``[N, D]``, in the order of ``texts``.

        Raises:
          UserError: an entry is not a string, the tokenizer does not belong to the weights, or those hold NaN.
        """
        tokens = self.tokenizer(texts, progress=progress)
        if len(tokens.id) and tokens.id.max() >= self.vocab_size:
            raise UserError(
                f"embedder {self.spec.name}: its tokenizer gives id {tokens.id.max()}, its model has {self.vocab_size} "
                "words: tokenizer and weights are of different checkpoints"
            )
        out_NxD = np.zeros((len(texts), self.dim), np.float32)
        waiting = deque()
        done = int((tokens.length == 0).sum())

        def collect() -> int:
            batch, pooled_BxSxD = waiting.popleft()
            out_NxD[batch.text] = np.asarray(pooled_BxSxD)[batch.row, batch.slot]
            progress("embed", done + len(batch.text), len(texts))
            return len(batch.text)

        plan = plan_batches(tokens.length, max_length=self.spec.max_length, batch_tokens=self.batch_tokens)
        for batch in plan:
            id_BxL, segment_BxL = fill(batch, tokens)
            pooled_BxSxD = _embed_batch(
                self.graphdef,
                self.state,
                id_BxL,
                segment_BxL,
                slots=batch.slots,
                pooling=self.spec.pooling,
                normalize=self.spec.normalize,
            )
            waiting.append((batch, pooled_BxSxD))
            if len(waiting) >= _IN_FLIGHT:
                done += collect()
        while waiting:
            done += collect()
        if not np.isfinite(out_NxD).all():
            raise UserError(
                f"embedder {self.spec.name}: embeddings are not finite, so its weights hold NaN or infinity"
            )
        return out_NxD


def load_embedder(spec: EmbedderSpec, *, batch_tokens: int = 1024) -> Embedder:
    """Find, check and load an embedder.

    Raises:
      UserError: see ``find_checkpoint`` and ``load_model``; max_length beyond the model's positions.
    """
    return find_embedder(spec, batch_tokens=batch_tokens)[1]()


def find_embedder(spec: EmbedderSpec, *, batch_tokens: int = 1024) -> tuple[str, Callable[[], Embedder]]:
    """An embedder's fingerprint, and how to load it: who has its embeddings already need not wait for the weights.

    Raises:
      UserError: see ``find_checkpoint``; max_length beyond the model's positions.
    """
    checkpoint = find_checkpoint(spec, ENCODERS)
    family = ENCODERS[spec.architecture]
    config = family.read_config(checkpoint.config, str(checkpoint.folder / "config.json"))
    if spec.max_length > config.max_positions:
        raise UserError(
            f"embedder.max_length={spec.max_length}: {checkpoint.folder} has {config.max_positions} positions"
        )
    tokenizer = load_tokenizer(checkpoint.folder, spec.max_length)
    decides = {
        "weights": checkpoint.sha256,
        "config": sha256_file(checkpoint.folder / "config.json"),
        "tokenizer": tokenizer.sha256,
        "pooling": spec.pooling,
        "normalize": spec.normalize,
        "max_length": spec.max_length,
        "architecture": spec.architecture,
    }
    fingerprint = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def load() -> Embedder:
        graphdef, state = nnx.split(load_model(lambda: family.build(config), family.rules, checkpoint.files))
        return Embedder(
            spec=spec,
            graphdef=graphdef,
            state=state,
            tokenizer=tokenizer,
            dim=config.hidden_size,
            vocab_size=config.vocab_size,
            fingerprint=fingerprint,
            batch_tokens=batch_tokens,
        )

    return fingerprint, load


@functools.partial(jax.jit, static_argnames=("graphdef", "slots", "pooling", "normalize"))
def _embed_batch(
    graphdef: nnx.GraphDef,
    state: nnx.State,
    id_BxL: Int[Array, "B L"],
    segment_BxL: Int[Array, "B L"],
    *,
    slots: int,
    pooling: str,
    normalize: bool,
) -> Float[Array, "B S D"]:
    """Encode B rows and pool each of their texts; slots without a text are zero."""
    # TPUs and GPUs round float32 products to bfloat16 or TF32 unless told not to; on a CPU this changes nothing.
    with jax.default_matmul_precision("float32"):
        state_BxLxD = nnx.merge(graphdef, state)(id_BxL, segment_BxL).last_BxLxD
        pooled_BxSxD = pool_segments(state_BxLxD, segment_BxL, slots=slots, pooling=pooling)
    if normalize:
        pooled_BxSxD /= jnp.maximum(jnp.linalg.norm(pooled_BxSxD, axis=-1, keepdims=True), 1e-12)
    return pooled_BxSxD


def pool_segments(
    x_BxLxD: Float[Array, "B L D"], segment_BxL: Int[Array, "B L"], *, slots: int, pooling: str
) -> Float[Array, "B S D"]:
    """One vector for each segment 1..S of each row: the mean of its states, or its first state ("cls").

    ``out[b, s] = sum_l weight[b, s, l] x[b, l]``; a segment without tokens gives zeros.
    """
    member_BxSxL = segment_BxL[:, None, :] == jnp.arange(1, slots + 1, dtype=segment_BxL.dtype)[:, None]
    if pooling == "cls":
        member_BxSxL &= jnp.cumsum(member_BxSxL, axis=-1) == 1
    weight_BxSxL = member_BxSxL.astype(x_BxLxD.dtype)
    sum_BxSxD = jnp.einsum("bsl,bld->bsd", weight_BxSxL, x_BxLxD)
    return sum_BxSxD / jnp.maximum(weight_BxSxL.sum(-1, keepdims=True), 1.0)
