"""The part of generation that runs on the device: read the prompts, then choose one token per step for all rows.

Letters as in layers.py: B rows, L tokens in a row, V vocabulary; C steps of a call, E tokens that end a text.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Float32, Int, Int32

from mig_jax.models.inference.logprobs import target_logprob
from mig_jax.models.networks.decoder import Cache, Decoder
from mig_jax.models.networks.sharding import constrain


class Rule(NamedTuple):
    """How a token is chosen; each rule is compiled separately.

    Args:
      greedy: choose the most likely token; of equal ones, the lowest id.
      top_k: otherwise sample from the ``top_k`` most likely tokens; None: from all.
      nucleus: sample only from the smallest set of most likely tokens with a probability of at least ``Draw.top_p``.
    """

    greedy: bool
    top_k: int | None
    nucleus: bool


class Draw(NamedTuple):
    """The parameters of sampling; other values do not compile again.

    Args:
      key: the random key of the whole input.
      index: the index of each row's prompt in the input; key, index and step determine the row's random numbers; int32
        ``[B]``.
      temperature: logits are divided by it; > 0 unless greedy.
      top_p: in (0, 1].
    """

    key: Array
    index: Int[Array | np.ndarray, " B"]
    temperature: Float[Array, ""] | np.float32
    top_p: Float[Array, ""] | np.float32


class Live(NamedTuple):
    """The state of a batch between two calls.

    Args:
      cache: keys and values of all tokens except the newest.
      token: the newest token; int32 ``[B]``.
      done: rows that have ended: they are still computed, and their tokens are ignored.
      step: the number of tokens chosen so far; int32.
    """

    cache: Cache
    token: Int[Array, " B"]
    done: Bool[Array, " B"]
    step: Int[Array, ""]


def choose(logit_BxV: Float32[Array, "B V"], rule: Rule, draw: Draw, step: Int[Array, ""]) -> Int32[Array, " B"]:
    """A token for each row: temperature, then top_k, then top_p, in transformers' order.

    A row's random key is ``fold_in(fold_in(key, index), step)``: it does not depend on the other rows of the batch.
    """
    if rule.greedy:
        return jnp.argmax(logit_BxV, axis=-1).astype(jnp.int32)
    # Sort only if required: sorting V = 128,256 logits takes longer than running a layer.
    sorts = rule.top_k is not None or rule.nucleus
    score_BxK, token_BxK = logit_BxV / draw.temperature, None
    if sorts:
        V = logit_BxV.shape[-1]
        score_BxK, token_BxK = jax.lax.top_k(score_BxK, V if rule.top_k is None else min(rule.top_k, V))
    if rule.nucleus:
        p_BxK = jax.nn.softmax(score_BxK, axis=-1)
        before_BxK = jnp.cumsum(p_BxK, axis=-1) - p_BxK
        score_BxK = jnp.where(before_BxK < draw.top_p, score_BxK, -jnp.inf)
    key_B = jax.vmap(lambda index: jax.random.fold_in(jax.random.fold_in(draw.key, index), step))(draw.index)
    choice_B = jax.vmap(jax.random.categorical)(key_B, score_BxK).astype(jnp.int32)
    return choice_B if token_BxK is None else jnp.take_along_axis(token_BxK, choice_B[:, None], axis=-1)[:, 0]


@functools.partial(jax.jit, static_argnames=("graphdef", "rule", "cache_length", "exact"))
def prefill(
    graphdef: nnx.GraphDef,
    state: nnx.State,
    id_BxL: Int[Array, "B L"],
    segment_BxL: Int[Array, "B L"],
    draw: Draw,
    end_E: Int[Array, " E"],
    *,
    rule: Rule,
    cache_length: int,
    exact: bool,
) -> tuple[Live, Int32[Array, " B"], Float32[Array, " B"]]:
    """Run the prompts, which are padded on the left, and choose each row's first token.

    Args:
      segment_BxL: 1 at tokens, 0 at padding; a row without tokens is done from the start.
      end_E: the tokens that end a text.
      cache_length: tokens that the cache can hold, including the L of the prompts.

    Returns:
      the state, the first token of each row, and its log-probability.
    """
    with jax.default_matmul_precision("float32" if exact else "default"):
        model: Decoder = nnx.merge(graphdef, state)
        # A prompt does not attend to later positions, so the cache is extended after it.
        states = model(id_BxL, segment_BxL, cache=model.empty_cache(*id_BxL.shape))
        assert states.cache is not None
        logit_BxV = _logits(model, states.last_BxLxD[:, -1])
    token_B, logprob_B = _chosen(logit_BxV, rule, draw, jnp.int32(0))
    done_B = (segment_BxL[:, -1] == 0) | jnp.isin(token_B, end_E)
    return Live(_extended(states.cache, cache_length), token_B, done_B, jnp.int32(1)), token_B, logprob_B


@functools.partial(jax.jit, static_argnames=("graphdef", "rule", "steps", "exact"), donate_argnames=("live",))
def decode(
    graphdef: nnx.GraphDef,
    state: nnx.State,
    live: Live,
    ended_B: Bool[Array, " B"],
    limit: Int[Array, ""],
    draw: Draw,
    end_E: Int[Array, " E"],
    *,
    rule: Rule,
    steps: int,
    exact: bool,
) -> tuple[Live, Int32[Array, "B C"], Float32[Array, "B C"]]:
    """Choose up to ``steps`` more tokens for every row that is not done; stop when all rows are done.

    Args:
      live: donated: its memory is reused.
      ended_B: rows that the caller has ended.
      limit: the maximum number of tokens of a row, over all calls.

    Returns:
      the state, the chosen tokens and their log-probabilities; columns after the last step are undefined.
    """
    B, start = live.token.shape[0], live.step
    live = live._replace(done=live.done | ended_B)

    def unfinished(carry: tuple[Live, Array, Array]) -> Bool[Array, ""]:
        current = carry[0]
        return (current.step - start < steps) & (current.step < limit) & ~current.done.all()

    def advance(carry: tuple[Live, Array, Array]) -> tuple[Live, Array, Array]:
        current, token_BxC, logprob_BxC = carry
        model: Decoder = nnx.merge(graphdef, state)
        segment_Bx1 = jnp.where(current.done, 0, 1).astype(jnp.int32)[:, None]
        states = model(current.token[:, None], segment_Bx1, cache=current.cache)
        assert states.cache is not None
        token_B, logprob_B = _chosen(_logits(model, states.last_BxLxD[:, 0]), rule, draw, current.step)
        offset = (jnp.int32(0), current.step - start)
        token_BxC = jax.lax.dynamic_update_slice(token_BxC, token_B[:, None], offset)
        logprob_BxC = jax.lax.dynamic_update_slice(logprob_BxC, logprob_B[:, None], offset)
        done_B = current.done | jnp.isin(token_B, end_E)
        return Live(_sharded(states.cache), token_B, done_B, current.step + 1), token_BxC, logprob_BxC

    with jax.default_matmul_precision("float32" if exact else "default"):
        empty = jnp.zeros((B, steps), jnp.int32), jnp.zeros((B, steps), jnp.float32)
        live, token_BxC, logprob_BxC = jax.lax.while_loop(unfinished, advance, (live, *empty))
    return live, constrain(token_BxC, None, None), constrain(logprob_BxC, None, None)


def _logits(model: Decoder, x_BxD: Float[Array, "B D"]) -> Float32[Array, "B V"]:
    return constrain(model.logits(x_BxD), "batch", "vocab")


def _chosen(
    logit_BxV: Float32[Array, "B V"], rule: Rule, draw: Draw, step: Int[Array, ""]
) -> tuple[Int32[Array, " B"], Float32[Array, " B"]]:
    """Tokens, and their log-probabilities under the model's own distribution; replicated on every device."""
    token_B = choose(logit_BxV, rule, draw, step)
    return constrain(token_B, None), constrain(target_logprob(logit_BxV, token_B), None)


def _extended(cache: Cache, length: int) -> Cache:
    """The cache, padded to ``length`` tokens."""
    padding = length - cache.segment.shape[1]
    key, value = (
        tuple(jnp.pad(layer, ((0, 0), (0, padding), (0, 0), (0, 0))) for layer in part)
        for part in (cache.key, cache.value)
    )
    return _sharded(cache._replace(key=key, value=value, segment=jnp.pad(cache.segment, ((0, 0), (0, padding)))))


def _sharded(cache: Cache) -> Cache:
    """Fix the sharding of the cache: it must be the same after each call, so that its memory can be reused."""
    key, value = (
        tuple(constrain(layer, "batch", None, "heads", None) for layer in part) for part in (cache.key, cache.value)
    )
    return cache._replace(
        key=key,
        value=value,
        segment=constrain(cache.segment, "batch", None),
        position=constrain(cache.position, "batch"),
    )
