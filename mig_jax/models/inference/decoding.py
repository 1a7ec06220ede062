"""The part of generation that runs on the device: read the prompts, then a token a step for all rows, until all end.

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
    """How a token is chosen; each rule is a program of its own.

    Args:
      greedy: the most likely one, of equals the lowest id.
      top_k: else, of this many most likely ones; None: of all.
      nucleus: and of the fewest of those that reach the probability ``Draw.top_p``.
    """

    greedy: bool
    top_k: int | None
    nucleus: bool


class Draw(NamedTuple):
    """The numbers of a choice; other numbers are no other program.

    Args:
      key: of the whole input.
      index: of each row, its prompt's in the input; with the step it decides the row's chance: int32 ``[B]``.
      temperature: logits are divided by it; > 0 unless greedy.
      top_p: in (0, 1].
    """

    key: Array
    index: Int[Array | np.ndarray, " B"]
    temperature: Float[Array, ""] | np.float32
    top_p: Float[Array, ""] | np.float32


class Live(NamedTuple):
    """Rows under way.

    Args:
      cache: of all tokens but the newest.
      token: the newest; int32 ``[B]``.
      done: rows that go on in the cache's shape only: their tokens mean nothing.
      step: tokens chosen so far; int32.
    """

    cache: Cache
    token: Int[Array, " B"]
    done: Bool[Array, " B"]
    step: Int[Array, ""]


def choose(logit_BxV: Float32[Array, "B V"], rule: Rule, draw: Draw, step: Int[Array, ""]) -> Int32[Array, " B"]:
    """A token for each row: temperature, then top_k, then top_p, in transformers' order.

    The chance of a row comes from ``fold_in(fold_in(key, index), step)``: who else is in its batch does not matter.
    """
    if rule.greedy:
        return jnp.argmax(logit_BxV, axis=-1).astype(jnp.int32)
    # Sorted only where it is needed: V = 128,256 takes longer to sort than a layer to run.
    some = rule.top_k is not None or rule.nucleus
    score_BxK, token_BxK = logit_BxV / draw.temperature, None
    if some:
        most = logit_BxV.shape[-1]
        score_BxK, token_BxK = jax.lax.top_k(score_BxK, most if rule.top_k is None else min(rule.top_k, most))
    if rule.nucleus:
        p_BxK = jax.nn.softmax(score_BxK, axis=-1)
        before_BxK = jnp.cumsum(p_BxK, axis=-1) - p_BxK
        score_BxK = jnp.where(before_BxK < draw.top_p, score_BxK, -jnp.inf)
    key_B = jax.vmap(lambda index: jax.random.fold_in(jax.random.fold_in(draw.key, index), step))(draw.index)
    place_B = jax.vmap(jax.random.categorical)(key_B, score_BxK).astype(jnp.int32)
    return place_B if token_BxK is None else jnp.take_along_axis(token_BxK, place_B[:, None], axis=-1)[:, 0]


@functools.partial(jax.jit, static_argnames=("graphdef", "rule", "places", "exact"))
def prefill(
    graphdef: nnx.GraphDef,
    state: nnx.State,
    id_BxL: Int[Array, "B L"],
    segment_BxL: Int[Array, "B L"],
    draw: Draw,
    end_E: Int[Array, " E"],
    *,
    rule: Rule,
    places: int,
    exact: bool,
) -> tuple[Live, Int32[Array, " B"], Float32[Array, " B"]]:
    """Read prompts that end at the right, and choose each row's first token.

    Args:
      segment_BxL: 1 at tokens, 0 at padding; a row of padding is done from the start.
      end_E: the tokens that end a text.
      places: of the cache, L included.

    Returns:
      the rows, their first tokens, and those's log-probabilities.
    """
    with jax.default_matmul_precision("float32" if exact else "default"):
        model: Decoder = nnx.merge(graphdef, state)
        # The prompt does not look at the places after it, so it need not see them.
        states = model(id_BxL, segment_BxL, cache=model.empty_cache(*id_BxL.shape))
        assert states.cache is not None
        logit_BxV = _logits(model, states.last_BxLxD[:, -1])
    token_B, found_B = _chosen(logit_BxV, rule, draw, jnp.int32(0))
    done_B = (segment_BxL[:, -1] == 0) | jnp.isin(token_B, end_E)
    return Live(_widened(states.cache, places), token_B, done_B, jnp.int32(1)), token_B, found_B


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
    """Up to ``steps`` tokens more for every row that is not done; it stops when all are.

    Args:
      live: its memory is used again.
      ended_B: rows that the caller has ended.
      limit: no row gets more than this many tokens in all.

    Returns:
      the rows, the tokens chosen and their log-probabilities; columns from the last step taken on mean nothing.
    """
    B, start = live.token.shape[0], live.step
    live = live._replace(done=live.done | ended_B)

    def under_way(carry: tuple[Live, Array, Array]) -> Bool[Array, ""]:
        now = carry[0]
        return (now.step - start < steps) & (now.step < limit) & ~now.done.all()

    def one(carry: tuple[Live, Array, Array]) -> tuple[Live, Array, Array]:
        now, token_BxC, found_BxC = carry
        model: Decoder = nnx.merge(graphdef, state)
        segment_Bx1 = jnp.where(now.done, 0, 1).astype(jnp.int32)[:, None]
        states = model(now.token[:, None], segment_Bx1, cache=now.cache)
        assert states.cache is not None
        token_B, found_B = _chosen(_logits(model, states.last_BxLxD[:, 0]), rule, draw, now.step)
        at = (jnp.int32(0), now.step - start)
        token_BxC = jax.lax.dynamic_update_slice(token_BxC, token_B[:, None], at)
        found_BxC = jax.lax.dynamic_update_slice(found_BxC, found_B[:, None], at)
        done_B = now.done | jnp.isin(token_B, end_E)
        return Live(_placed(states.cache), token_B, done_B, now.step + 1), token_BxC, found_BxC

    with jax.default_matmul_precision("float32" if exact else "default"):
        blank = jnp.zeros((B, steps), jnp.int32), jnp.zeros((B, steps), jnp.float32)
        live, token_BxC, found_BxC = jax.lax.while_loop(under_way, one, (live, *blank))
    return live, constrain(token_BxC, None, None), constrain(found_BxC, None, None)


def _logits(model: Decoder, x_BxD: Float[Array, "B D"]) -> Float32[Array, "B V"]:
    return constrain(model.logits(x_BxD), "batch", "vocab")


def _chosen(
    logit_BxV: Float32[Array, "B V"], rule: Rule, draw: Draw, step: Int[Array, ""]
) -> tuple[Int32[Array, " B"], Float32[Array, " B"]]:
    """Tokens, and their log-probabilities under the model's own distribution; whole on every device."""
    token_B = choose(logit_BxV, rule, draw, step)
    return constrain(token_B, None), constrain(target_logprob(logit_BxV, token_B), None)


def _widened(cache: Cache, places: int) -> Cache:
    """The cache with room for ``places`` tokens."""
    more = places - cache.segment.shape[1]
    key, value = (
        tuple(jnp.pad(layer, ((0, 0), (0, more), (0, 0), (0, 0))) for layer in part)
        for part in (cache.key, cache.value)
    )
    return _placed(cache._replace(key=key, value=value, segment=jnp.pad(cache.segment, ((0, 0), (0, more)))))


def _placed(cache: Cache) -> Cache:
    """Every call leaves the cache where the next one wants it, or its memory could not be used again."""
    key, value = (
        tuple(constrain(layer, "batch", None, "heads", None) for layer in part) for part in (cache.key, cache.value)
    )
    return cache._replace(
        key=key,
        value=value,
        segment=constrain(cache.segment, "batch", None),
        position=constrain(cache.position, "batch"),
    )
