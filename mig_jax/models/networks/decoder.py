"""The decoder that Llama, Mistral, Qwen2 / 2.5, Qwen3 and SmolLM2 share: attention with rotations, gated feed-forward.

Letters as in layers.py. Sources of names and numerics: transformers/models/{llama,mistral,qwen2,qwen3}/modeling_*.py.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from mig_jax.models.checkpoints.decoder_config import DecoderConfig, Rope
from mig_jax.models.networks.layers import (
    ACTIVATIONS,
    FLOAT32,
    Build,
    Embed,
    Linear,
    RMSNorm,
    attend,
    segment_positions,
)
from mig_jax.models.networks.sharding import constrain
from mig_jax.models.networks.weights import WeightMap, WeightRule


class Cache(NamedTuple):
    """Keys and values of the tokens seen so far, so that the next ones cost one token each.

    Args:
      key, value: of each layer, ``[B, S, G, K]``; places from ``length`` on are not yet written.
      segment: of each place, 0 where padding or nothing lies; int32 ``[B, S]``.
      position: of each row, the position of its next token; int32 ``[B]``.
      length: places written, the same for all rows; int32.
    """

    key: tuple[Float[Array, "B S G K"], ...]
    value: tuple[Float[Array, "B S G K"], ...]
    segment: Int[Array, "B S"]
    position: Int[Array, " B"]
    length: Int[Array, ""]


class States(NamedTuple):
    """The result of a forward pass.

    Args:
      last: after the final norm, ``[B, L, D]``; at padding they mean nothing.
      hidden: the embeddings, the states after each layer but the last, and ``last``; empty unless asked for.
      cache: with these tokens in it; None where none was given.
    """

    last_BxLxD: Float[Array, "B L D"]
    hidden: tuple[Float[Array, "B L D"], ...]
    cache: Cache | None


def frequencies(rope: Rope, size: int) -> np.ndarray:
    """Radians a position for each pair of a head's numbers, float32 ``[K/2]`` (transformers modeling_rope_utils.py)."""
    plain = 1.0 / rope.theta ** (np.arange(0, size, 2, dtype=np.float32) / size)
    if rope.kind == "linear":
        plain = plain / rope.factor
    elif rope.kind == "factors":
        plain = plain / np.array(rope.factors)
    elif rope.kind == "llama3":
        # A frequency that turns more than `high` times within the original context stays, one that turns less than
        # `low` times is divided by the factor, and between them the two are mixed in proportion.
        turns = rope.original * plain / (2 * np.pi)
        stay = np.clip((turns - rope.low) / (rope.high - rope.low), 0.0, 1.0)
        plain = stay * plain + (1 - stay) * plain / rope.factor
    return plain.astype(np.float32)


def rotate(x_BxLxHxK: Float[Array, "B L H K"], angle_BxLxP: Float[Array, "B L P"]) -> Float[Array, "B L H K"]:
    """Turn the pairs (k, k + K/2) of each head by their angles; P = K/2."""
    cos, sin = jnp.cos(angle_BxLxP)[:, :, None], jnp.sin(angle_BxLxP)[:, :, None]
    first, second = jnp.split(x_BxLxHxK.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x_BxLxHxK.dtype)


class Attention(nnx.Module):
    """Grouped-query attention with rotations."""

    def __init__(self, config: DecoderConfig, options: Build, *, rngs: nnx.Rngs):
        dim, heads, groups, size = config.hidden_size, config.num_heads, config.num_kv_heads, config.head_dim
        into = {"axes": ("embed", "heads", None), "bias": config.qkv_bias, "dtype": options.dtype, "rngs": rngs}
        self.query = Linear((dim,), (heads, size), **into)
        self.key = Linear((dim,), (groups, size), **into)
        self.value = Linear((dim,), (groups, size), **into)
        self.output = Linear(
            (heads, size), (dim,), ("heads", None, "embed"), bias=config.out_bias, dtype=options.dtype, rngs=rngs
        )
        self.query_norm = RMSNorm(size, config.eps, dtype=options.dtype) if config.qk_norm else None
        self.key_norm = RMSNorm(size, config.eps, dtype=options.dtype) if config.qk_norm else None
        self.how = options.attention

    def __call__(
        self,
        x_BxLxD: Float[Array, "B L D"],
        angle_BxLxP: Float[Array, "B L P"],
        mask_BxLxS: Bool[Array, "B L S"],
        past: tuple[Float[Array, "B S G K"], Float[Array, "B S G K"], Int[Array, ""]] | None,
    ) -> tuple[Float[Array, "B L D"], tuple[Float[Array, "B S G K"], Float[Array, "B S G K"]]]:
        """Attend; ``past`` is this layer's cached keys and values and how many are written."""
        q, k, v = self.query(x_BxLxD), self.key(x_BxLxD), self.value(x_BxLxD)
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        q, k = rotate(q, angle_BxLxP), rotate(k, angle_BxLxP)
        q, k, v = (constrain(part, "batch", None, "heads", None) for part in (q, k, v))
        if past is not None:
            keys, values, length = past
            k = jax.lax.dynamic_update_slice_in_dim(keys, k, length, axis=1)
            v = jax.lax.dynamic_update_slice_in_dim(values, v, length, axis=1)
        return self.output(attend(q, k, v, mask_BxLxS, causal=past is None, how=self.how)), (k, v)


class Mlp(nnx.Module):
    """``down(act(gate(x)) * up(x))`` (Shazeer 2020)."""

    def __init__(self, config: DecoderConfig, options: Build, *, rngs: nnx.Rngs):
        dim, ffn = config.hidden_size, config.intermediate_size
        rest = {"bias": config.mlp_bias, "dtype": options.dtype, "rngs": rngs}
        self.gate = Linear((dim,), (ffn,), ("embed", "mlp"), **rest)
        self.up = Linear((dim,), (ffn,), ("embed", "mlp"), **rest)
        self.down = Linear((ffn,), (dim,), ("mlp", "embed"), **rest)
        self.activation = config.activation

    def __call__(self, x_BxLxD: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        """Shapes in and out are equal."""
        h_BxLxF = ACTIVATIONS[self.activation](self.gate(x_BxLxD)) * self.up(x_BxLxD)
        return self.down(constrain(h_BxLxF, "batch", None, "mlp"))


class DecoderLayer(nnx.Module):
    """``x <- x + attention(norm(x)); x <- x + mlp(norm(x))``."""

    def __init__(self, config: DecoderConfig, options: Build, *, rngs: nnx.Rngs):
        self.attention_norm = RMSNorm(config.hidden_size, config.eps, dtype=options.dtype)
        self.attention = Attention(config, options, rngs=rngs)
        self.mlp_norm = RMSNorm(config.hidden_size, config.eps, dtype=options.dtype)
        self.mlp = Mlp(config, options, rngs=rngs)

    def __call__(self, x_BxLxD, angle_BxLxP, mask_BxLxS, past):
        """One layer: the states, and its keys and values (see ``Attention``)."""
        mixed, cached = self.attention(self.attention_norm(x_BxLxD), angle_BxLxP, mask_BxLxS, past)
        x_BxLxD = constrain(x_BxLxD + mixed, "batch", None, None)
        return constrain(x_BxLxD + self.mlp(self.mlp_norm(x_BxLxD)), "batch", None, None), cached


class Decoder(nnx.Module):
    """The stack. ``head`` builds the map to the vocabulary too; embedders do without."""

    def __init__(self, config: DecoderConfig, options: Build = FLOAT32, *, head: bool = True, rngs: nnx.Rngs):
        dim = config.hidden_size
        self.config = config
        self.embed = Embed(config.vocab_size, dim, dtype=options.dtype, rngs=rngs, axes=("vocab", "embed"))
        self.layers = nnx.List([DecoderLayer(config, options, rngs=rngs) for _ in range(config.num_layers)])
        self.norm = RMSNorm(dim, config.eps, dtype=options.dtype)
        to_vocabulary = ((dim,), (config.vocab_size,), ("embed", "vocab"))
        own = head and not config.tied
        self.head = Linear(*to_vocabulary, bias=False, dtype=options.dtype, rngs=rngs) if own else None

    def __call__(
        self,
        id_BxL: Int[Array, "B L"],
        segment_BxL: Int[Array, "B L"],
        *,
        cache: Cache | None = None,
        hidden_states: bool = False,
        remat: bool = False,
    ) -> States:
        """The states of B rows of L tokens.

        Args:
          id_BxL: token ids in [0, vocab_size).
          segment_BxL: 0 at padding, which may stand left or right; a token sees the earlier tokens of its own number
            only, and its position counts from the first of them.
          cache: the tokens before these; L more must fit into it. Then a row is one text, and its segment 1.
          hidden_states: keep every layer's output.
          remat: for training: keep only each layer's input, and compute the rest again on the way back.
        """
        if cache is None:
            position_BxL, seen_BxS, start = segment_positions(segment_BxL), segment_BxL, 0
        else:
            counted_BxL = jnp.cumsum(segment_BxL > 0, axis=1, dtype=jnp.int32)
            position_BxL, start = cache.position[:, None] + jnp.maximum(counted_BxL - 1, 0), cache.length
            seen_BxS = jax.lax.dynamic_update_slice_in_dim(cache.segment, segment_BxL, start, axis=1)
            rest = {"segment": seen_BxS, "position": cache.position + counted_BxL[:, -1]}
        masks = {window: _mask(segment_BxL, seen_BxS, start, window) for window in set(self.config.windows)}
        angle_BxLxP = position_BxL[..., None] * frequencies(self.config.rope, self.config.head_dim)
        x_BxLxD = constrain(self.embed(id_BxL), "batch", None, None)
        hidden, cached = [x_BxLxD], []
        for n, (layer, window) in enumerate(zip(self.layers, self.config.windows, strict=True)):
            past = None if cache is None else (cache.key[n], cache.value[n], cache.length)
            run = nnx.remat(DecoderLayer.__call__) if remat else DecoderLayer.__call__
            x_BxLxD, kv = run(layer, x_BxLxD, angle_BxLxP, masks[window], past)
            hidden.append(x_BxLxD)
            cached.append(kv)
        hidden[-1] = last_BxLxD = self.norm(x_BxLxD)
        if cache is not None:
            keys, values = (tuple(part) for part in zip(*cached, strict=True))
            cache = cache._replace(key=keys, value=values, length=start + id_BxL.shape[1], **rest)
        return States(last_BxLxD, tuple(hidden) if hidden_states else (), cache)

    @property
    def output_kernel(self) -> Float[Array, "D V"]:
        """The map to the vocabulary: the head's, or the transposed input table where they are tied."""
        return self.embed.embedding[...].T if self.head is None else self.head.kernel[...]

    def logits(self, x: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Scores of the next token, float32."""
        return jnp.matmul(x, self.output_kernel, preferred_element_type=jnp.float32)

    def logits_of(self, x: Float[Array, "... D"], id_C: Int[Array, " C"]) -> Float[Array, "... C"]:
        """The same of C words only."""
        return jnp.matmul(x, self.output_kernel[:, id_C], preferred_element_type=jnp.float32)

    def empty_cache(self, rows: int, places: int) -> Cache:
        """A cache for rows of up to ``places`` tokens, with nothing in it."""
        shape = (rows, places, self.config.num_kv_heads, self.config.head_dim)
        dtype = self.embed.embedding[...].dtype
        blank = tuple(
            constrain(jnp.zeros(shape, dtype), "batch", None, "heads", None) for _ in range(self.config.num_layers)
        )
        zeros = jnp.zeros((rows, places), jnp.int32)
        return Cache(blank, blank, zeros, jnp.zeros(rows, jnp.int32), jnp.int32(0))


def _mask(
    segment_BxL: Int[Array, "B L"], seen_BxS: Int[Array, "B S"], start: Int[Array, ""] | int, window: int | None
) -> Bool[Array, "B L S"]:
    """Token l, at position start + l, attends to position s of its segment if 0 <= start + l - s < ``window``."""
    back_LxS = start + jnp.arange(segment_BxL.shape[1])[:, None] - jnp.arange(seen_BxS.shape[1])
    near_LxS = back_LxS >= 0 if window is None else (back_LxS >= 0) & (back_LxS < window)
    return (segment_BxL[:, :, None] == seen_BxS[:, None, :]) & near_LxS


_LAYER, _AT = "model.layers.{n}.", "layers.{n}."


def weight_map(config: DecoderConfig, *, head: bool = True) -> WeightMap:
    """The weight map of a decoder's checkpoint; files of the bare stack, without ``model.``, fit too."""
    rules = [WeightRule("model.embed_tokens.weight", "embed.embedding"), WeightRule("model.norm.weight", "norm.scale")]
    for name, target, how in (
        ("q_proj", "query", "outputs"),
        ("k_proj", "key", "outputs"),
        ("v_proj", "value", "outputs"),
        ("o_proj", "output", "inputs"),
    ):
        source, to = f"{_LAYER}self_attn.{name}.", f"{_AT}attention.{target}."
        rules.append(WeightRule(source + "weight", to + "kernel", how))
        if config.out_bias if target == "output" else config.qkv_bias:
            rules.append(WeightRule(source + "bias", to + "bias", "same" if target == "output" else "flat"))
    if config.qk_norm:
        for name, target in (("q_norm", "query_norm"), ("k_norm", "key_norm")):
            rules.append(WeightRule(f"{_LAYER}self_attn.{name}.weight", f"{_AT}attention.{target}.scale"))
    for name, target in (("gate_proj", "gate"), ("up_proj", "up"), ("down_proj", "down")):
        rules.append(WeightRule(f"{_LAYER}mlp.{name}.weight", f"{_AT}mlp.{target}.kernel", "outputs"))
        if config.mlp_bias:
            rules.append(WeightRule(f"{_LAYER}mlp.{name}.bias", f"{_AT}mlp.{target}.bias"))
    rules.append(WeightRule(f"{_LAYER}input_layernorm.weight", f"{_AT}attention_norm.scale"))
    rules.append(WeightRule(f"{_LAYER}post_attention_layernorm.weight", f"{_AT}mlp_norm.scale"))
    ignored = [r"(model\.)?layers\.\d+\.self_attn\.rotary_emb\.inv_freq"]  # a buffer, of transformers < 4.32
    if head and not config.tied:
        rules.append(WeightRule("lm_head.weight", "head.kernel", "outputs"))
    else:
        ignored.append(r"(model\.)?lm_head\.weight")  # tied: a copy of the input table; an embedder: not used
    if not head:
        ignored.append(r"score\.(weight|bias)")  # a classifier's (...ForSequenceClassification), not used
    return WeightMap(tuple(rules), tuple(ignored), base="model.")
