"""How likely a model finds given texts, token by token: what IFD and evaluation are made of.

Letters as in packing.py: N texts, Z tokens in all, B rows, L tokens in a row; P places of a batch whose next token is
asked for, D hidden size, V vocabulary, C places at once.
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

_ON_CPU, _ON_ACCELERATOR = 2**24, 2**27  # logits at once: on a CPU near its caches, elsewhere 512 MiB


def token_logprobs(
    model: LanguageModel,
    texts: Tokens | Sequence[Sequence[int]],
    first: int | Sequence[int] | Int64[np.ndarray, " N"] = 1,
    *,
    batch_tokens: int | None = None,
    progress: Progress = silent,
) -> Float32[np.ndarray, " Z"]:
    """``log p(token t | tokens 0..t-1 of its text)``, for t >= first; nothing is put in front of a text.

    Args:
      texts: N lists of ids.
      first: of each text, or of all, the first token that counts, >= 0; what is before it costs no logits. A text that
        has no such token is not run.
      batch_tokens: tokens of a batch, padding included; None: what suits the backend. Another value changes results by
        rounding only (1e-5).
      progress: told "logprobs" with the number of texts done.

    Returns:
      float32 ``[Z]``, text after text; NaN where there is no prediction: the first token of each text, those before
      ``first``.

    Raises:
      UserError: a text is longer than the model's, an id is not the model's, its weights hold NaN.
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
    for batch, wanted, found_P in _run(model, tokens, first_N, plan):
        out_Z[wanted.token] = found_P
        done += len(batch.text)
        progress("logprobs", done, len(length_N), "texts")
    return out_Z


def mean_losses(
    model: LanguageModel,
    tokens: Tokens,
    first: int | Sequence[int] | Int64[np.ndarray, " N"],
    batches: Iterable[Batch],
) -> Iterator[tuple[Batch, Float64[np.ndarray, "n 1"]]]:
    """``-mean_t log p(token t | tokens 0..t-1 of its text)`` over t >= first, of the texts of some planned batches.

    The mean is float64, over float32 log-probabilities.

    Args:
      tokens: N texts that ``model.check`` has passed.
      first: as of ``token_logprobs``.
      batches: of ``plan_batches``; any of them, in any order.

    Returns:
      each batch with its n texts' means, in the order given; NaN where no token counts.

    Raises:
      UserError: the model's weights hold NaN.
    """
    first_N = _firsts(tokens, first)
    for batch, _, found_P in _run(model, tokens, first_N, batches):
        count_n = _counts(batch, tokens, first_N)
        of_P = np.repeat(np.arange(len(count_n)), count_n)
        sum_n = np.bincount(of_P, -found_P.astype(np.float64), minlength=len(count_n))
        yield batch, np.where(count_n > 0, sum_n / np.maximum(count_n, 1), np.nan)[:, None]


class _Wanted(NamedTuple):
    """What is asked of a batch.

    Args:
      place: where in the batch, rows end to end, the state lies that predicts; int32 ``[P]``.
      token: which of all tokens it predicts; int64 ``[P]``.
    """

    place: Int32[np.ndarray, " P"]
    token: Int64[np.ndarray, " P"]


def _firsts(tokens: Tokens, first: int | Sequence[int] | np.ndarray) -> Int64[np.ndarray, " N"]:
    """Nothing predicts the first token of a text."""
    return np.maximum(np.broadcast_to(np.asarray(first, np.int64), len(tokens.length)), 1)


def _counts(batch: Batch, tokens: Tokens, first_N: Int64[np.ndarray, " N"]) -> Int64[np.ndarray, " n"]:
    """How many tokens count of each text of a batch."""
    return np.maximum(tokens.length[batch.text] - first_N[batch.text], 0)


def _wanted(batch: Batch, tokens: Tokens, first_N: Int64[np.ndarray, " N"]) -> _Wanted:
    first_n, count_n = first_N[batch.text], _counts(batch, tokens, first_N)
    within = np.arange(count_n.sum()) - np.repeat(np.cumsum(count_n) - count_n, count_n)
    place = np.repeat(batch.row * batch.width + batch.start + first_n - 1, count_n) + within
    return _Wanted(place.astype(np.int32), np.repeat(tokens.ptr[batch.text] + first_n, count_n) + within)


def _run(
    model: LanguageModel, tokens: Tokens, first_N: Int64[np.ndarray, " N"], plan: Iterable[Batch]
) -> Iterator[tuple[Batch, _Wanted, Float32[np.ndarray, " P"]]]:
    """The batches in order; the device works on the next while the caller has one."""
    asked = ((batch, _wanted(batch, tokens, first_N)) for batch in plan)
    return in_flight(
        asked, lambda one: _send(model, one[0], tokens, one[1]), lambda one, found_P: _receive(model, *one, found_P)
    )


def _send(model: LanguageModel, batch: Batch, tokens: Tokens, wanted: _Wanted) -> Array:
    loaded = model.loaded
    id_BxL, segment_BxL = fill(batch, tokens, multiple=loaded.row_multiple)
    at_once = _at_once(model.config.vocab_size, id_BxL.size)
    place_P = np.zeros(-(-id_BxL.size // at_once) * at_once, np.int32)
    target_P = np.zeros_like(place_P)
    place_P[: len(wanted.place)] = wanted.place
    target_P[: len(wanted.place)] = tokens.id[wanted.token]
    with loaded.on_mesh():
        found_P = _logprobs(
            loaded.graphdef,
            loaded.state,
            *loaded.rows(id_BxL, segment_BxL),
            place_P,
            target_P,
            np.int32(len(wanted.place)),
            at_once=at_once,
            exact=loaded.exact,
        )
    found_P.copy_to_host_async()
    return found_P


def _receive(model: LanguageModel, batch: Batch, wanted: _Wanted, found_P: Array) -> tuple[Batch, _Wanted, np.ndarray]:
    found = np.asarray(found_P)[: len(wanted.place)]
    if np.isnan(found).any():
        raise UserError(f"model {model.name}: log-probabilities are not numbers, so its weights hold NaN or infinity")
    return batch, wanted, found


def _at_once(vocab_size: int, places: int) -> int:
    """C: a power of two, of no more logits than a chunk may have, nor places than there are."""
    logits = _ON_CPU if jax.default_backend() == "cpu" else _ON_ACCELERATOR
    most = max(1, min(logits // vocab_size, places))
    return 1 << (most.bit_length() - 1)


@functools.partial(jax.jit, static_argnames=("graphdef", "at_once", "exact"))
def _logprobs(
    graphdef: nnx.GraphDef,
    state: nnx.State,
    id_BxL: Int[Array, "B L"],
    segment_BxL: Int[Array, "B L"],
    place_P: Int[Array, " P"],
    target_P: Int[Array, " P"],
    count: Int[Array, ""],
    *,
    at_once: int,
    exact: bool,
) -> Float32[Array, " P"]:
    """Run B rows; then, at the first ``count`` places, ``logit of the target - log sum exp logits``.

    The places come in chunks of ``at_once``, as many as are needed: logits of a whole batch would be larger than the
    model, and half of a text is often not asked for.
    """
    with jax.default_matmul_precision("float32" if exact else "default"):
        model = nnx.merge(graphdef, state)
        last_BxLxD = model(id_BxL, segment_BxL).last_BxLxD
        x_TxD = last_BxLxD.reshape(-1, last_BxLxD.shape[-1])

        def chunk(index: Int[Array, ""], out_P: Float[Array, " P"]) -> Float[Array, " P"]:
            start = index * at_once
            place_C, target_C = (jax.lax.dynamic_slice_in_dim(of, start, at_once) for of in (place_P, target_P))
            x_CxD = constrain(x_TxD.at[place_C].get(mode="promise_in_bounds"), "batch", None)
            logit_CxV = constrain(model.logits(x_CxD), "batch", "vocab")
            found_C = target_logprob(logit_CxV, target_C)
            return jax.lax.dynamic_update_slice_in_dim(out_P, found_C, start, axis=0)

        chunks = (count + at_once - 1) // at_once
        out_P = jax.lax.fori_loop(0, chunks, chunk, jnp.zeros(place_P.shape, jnp.float32))
    return constrain(out_P, None)


def target_logprob(logit_RxV: Float[Array, "R V"], target_R: Int[Array, " R"]) -> Float32[Array, " R"]:
    """``logit[r, target[r]] - log sum_v exp logit[r, v]``."""
    logit_RxV = logit_RxV.astype(jnp.float32)
    chosen_R = jnp.take_along_axis(logit_RxV, target_R[:, None], axis=-1)[:, 0]
    return chosen_R - jax.nn.logsumexp(logit_RxV, axis=-1)
