"""Log-probabilities of the tokens of texts under a language model, for IFD and evaluation.

Letters as in packing.py: N texts, Z tokens in all, B rows, L tokens in a row; P positions of a batch whose next token
is scored, D hidden size, V vocabulary, C positions in a chunk.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32, Float64, Int, Int32, Int64

from mig_jax.core.errors import UserError
from mig_jax.core.progress import Progress, silent
from mig_jax.models.inference.language_model import LanguageModel, as_tokens
from mig_jax.models.inference.loaded import in_flight
from mig_jax.models.inference.packing import Batch, fill, plan_batches, usual_batch_tokens
from mig_jax.models.networks.sharding import constrain
from mig_jax.models.tokenizers.tokens import Tokens

_ON_CPU, _ON_ACCELERATOR = 2**24, 2**27  # logits of a chunk: on a CPU they fit its caches, elsewhere 512 MiB


def token_logprobs(
    model: LanguageModel,
    texts: Tokens | Sequence[Sequence[int]],
    first: int | Sequence[int] | Int64[np.ndarray, " N"] = 1,
    *,
    batch_tokens: int | None = None,
    progress: Progress = silent,
) -> Float32[np.ndarray, " Z"]:
    """``log p(token t | tokens 0..t-1 of its text)``, for t >= first; no token is added in front of a text.

    Args:
      texts: N lists of ids.
      first: the index >= 0 of the first token to score, for each text or for all; no logits are computed for earlier
        tokens. A text without tokens to score is not run.
      batch_tokens: tokens of a batch, padding included; None: the default of the backend. The results depend on it by
        rounding only (1e-5).
      progress: called with the number of texts done, in the stage "logprobs".

    Returns:
      float32 ``[Z]``, text after text; NaN where there is no prediction: at the first token of each text, and before
      ``first``.

    Raises:
      UserError: a text is longer than the model's maximum, an id is not in its vocabulary, its weights contain NaN.
    """
    tokens = as_tokens(texts)
    model.check(tokens)
    first_N = _firsts(tokens, first)
    length_N = np.where(first_N < tokens.length, tokens.length, 0)
    plan = plan_batches(
        length_N,
        max_length=model.max_length,
        batch_tokens=usual_batch_tokens() if batch_tokens is None else batch_tokens,
    )
    out_Z = np.full(len(tokens.id), np.nan, np.float32)
    done = int((length_N == 0).sum())
    for batch, targets, logprob_P in _run(model, tokens, first_N, plan):
        out_Z[targets.token] = logprob_P
        done += len(batch.text)
        progress("logprobs", done, len(length_N), "texts")
    return out_Z


def mean_losses(
    model: LanguageModel,
    tokens: Tokens,
    first: int | Sequence[int] | Int64[np.ndarray, " N"],
    batches: Iterable[Batch],
) -> Iterator[tuple[Batch, Float64[np.ndarray, "n 1"]]]:
    """``-mean_t log p(token t | tokens 0..t-1 of its text)`` over t >= first, for the texts of planned batches.

    The mean is float64, over float32 log-probabilities.

    Args:
      tokens: N texts that ``model.check`` accepts.
      first: as in ``token_logprobs``.
      batches: some of the batches of ``plan_batches``, in any order.

    Returns:
      each batch with the means of its n texts, in the order of ``batches``; NaN for a text without tokens to score.

    Raises:
      UserError: the model's weights contain NaN.
    """
    first_N = _firsts(tokens, first)
    for batch, _, logprob_P in _run(model, tokens, first_N, batches):
        count_n = _counts(batch, tokens, first_N)
        text_P = np.repeat(np.arange(len(count_n)), count_n)
        sum_n = np.bincount(text_P, -logprob_P.astype(np.float64), minlength=len(count_n))
        yield batch, np.where(count_n > 0, sum_n / np.maximum(count_n, 1), np.nan)[:, None]


class _Targets(NamedTuple):
    """The tokens of a batch to score.

    Args:
      position: the position in the batch (rows end to end) of the hidden state that predicts the token; int32 ``[P]``.
      token: the token's index in ``tokens.id``; int64 ``[P]``.
    """

    position: Int32[np.ndarray, " P"]
    token: Int64[np.ndarray, " P"]


def _firsts(tokens: Tokens, first: int | Sequence[int] | np.ndarray) -> Int64[np.ndarray, " N"]:
    """``first`` of each text, at least 1: the first token of a text has no prediction."""
    return np.maximum(np.broadcast_to(np.asarray(first, np.int64), len(tokens.length)), 1)


def _counts(batch: Batch, tokens: Tokens, first_N: Int64[np.ndarray, " N"]) -> Int64[np.ndarray, " n"]:
    """The number of tokens to score of each text of a batch."""
    return np.maximum(tokens.length[batch.text] - first_N[batch.text], 0)


def _targets(batch: Batch, tokens: Tokens, first_N: Int64[np.ndarray, " N"]) -> _Targets:
    first_n, count_n = first_N[batch.text], _counts(batch, tokens, first_N)
    within = np.arange(count_n.sum()) - np.repeat(np.cumsum(count_n) - count_n, count_n)
    position = np.repeat(batch.row * batch.width + batch.start + first_n - 1, count_n) + within
    return _Targets(position.astype(np.int32), np.repeat(tokens.ptr[batch.text] + first_n, count_n) + within)


def _run(
    model: LanguageModel, tokens: Tokens, first_N: Int64[np.ndarray, " N"], plan: Iterable[Batch]
) -> Iterator[tuple[Batch, _Targets, Float32[np.ndarray, " P"]]]:
    """The batches in order; the device computes the next ones while the caller handles one."""
    items = ((batch, _targets(batch, tokens, first_N)) for batch in plan)
    return in_flight(
        items,
        lambda item: _send(model, item[0], tokens, item[1]),
        lambda item, logprob_P: _receive(model, *item, logprob_P),
    )


def _send(model: LanguageModel, batch: Batch, tokens: Tokens, targets: _Targets) -> Array:
    loaded = model.loaded
    id_BxL, segment_BxL = fill(batch, tokens, multiple=loaded.row_multiple)
    chunk_size = chunk_size_of(model.config.vocab_size, id_BxL.size)
    position_P = np.zeros(-(-id_BxL.size // chunk_size) * chunk_size, np.int32)
    target_P = np.zeros_like(position_P)
    position_P[: len(targets.position)] = targets.position
    target_P[: len(targets.position)] = tokens.id[targets.token]
    with loaded.on_mesh():
        logprob_P = _logprobs(
            loaded.graphdef,
            loaded.state,
            *loaded.rows(id_BxL, segment_BxL),
            position_P,
            target_P,
            np.int32(len(targets.position)),
            chunk_size=chunk_size,
            exact=loaded.exact,
        )
    logprob_P.copy_to_host_async()
    return logprob_P


def _receive(
    model: LanguageModel, batch: Batch, targets: _Targets, logprob_P: Array
) -> tuple[Batch, _Targets, np.ndarray]:
    values_P = np.asarray(logprob_P)[: len(targets.position)]
    if np.isnan(values_P).any():
        raise UserError(
            "log-probabilities are not numbers, so its weights contain NaN or infinity", where=f"model {model.name}"
        )
    return batch, targets, values_P


def chunk_size_of(vocab_size: int, positions: int) -> int:
    """C: the largest power of two within the logits of a chunk and the number of positions."""
    logits = _ON_CPU if jax.default_backend() == "cpu" else _ON_ACCELERATOR
    limit = max(1, min(logits // vocab_size, positions))
    return 1 << (limit.bit_length() - 1)


@functools.partial(jax.jit, static_argnames=("graphdef", "chunk_size", "exact"))
def _logprobs(
    graphdef: nnx.GraphDef,
    state: nnx.State,
    id_BxL: Int[Array, "B L"],
    segment_BxL: Int[Array, "B L"],
    position_P: Int[Array, " P"],
    target_P: Int[Array, " P"],
    count: Int[Array, ""],
    *,
    chunk_size: int,
    exact: bool,
) -> Float32[Array, " P"]:
    """Run B rows; then, at the first ``count`` positions, ``logit of the target - log sum exp logits``.

    Chunks of ``chunk_size`` positions are processed one after the other, as many as ``count`` requires: the logits of a
    whole batch would be larger than the model, and often half of a text is not scored.
    """
    with jax.default_matmul_precision("float32" if exact else "default"):
        model = nnx.merge(graphdef, state)
        last_BxLxD = model(id_BxL, segment_BxL).last_BxLxD
        x_TxD = last_BxLxD.reshape(-1, last_BxLxD.shape[-1])

        def chunk(index: Int[Array, ""], out_P: Float[Array, " P"]) -> Float[Array, " P"]:
            start = index * chunk_size
            position_C, target_C = (
                jax.lax.dynamic_slice_in_dim(array_P, start, chunk_size) for array_P in (position_P, target_P)
            )
            x_CxD = constrain(x_TxD.at[position_C].get(mode="promise_in_bounds"), "batch", None)
            logit_CxV = constrain(model.logits(x_CxD), "batch", "vocab")
            logprob_C = target_logprob(logit_CxV, target_C)
            return jax.lax.dynamic_update_slice_in_dim(out_P, logprob_C, start, axis=0)

        chunks = (count + chunk_size - 1) // chunk_size
        out_P = jax.lax.fori_loop(0, chunks, chunk, jnp.zeros(position_P.shape, jnp.float32))
    return constrain(out_P, None)


def target_logprob(logit_RxV: Float[Array, "R V"], target_R: Int[Array, " R"]) -> Float32[Array, " R"]:
    """``logit[r, target[r]] - log sum_v exp logit[r, v]``."""
    logit_RxV = logit_RxV.astype(jnp.float32)
    chosen_R = jnp.take_along_axis(logit_RxV, target_R[:, None], axis=-1)[:, 0]
    return chosen_R - jax.nn.logsumexp(logit_RxV, axis=-1)
