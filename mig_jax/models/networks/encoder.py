"""The post-norm transformer encoder that BERT, RoBERTa, XLM-R and MPNet share: embeddings, layers, weight map.

Letters as in layers.py. The families' own files say what their config.json and their checkpoints call things.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from mig_jax.models.checkpoints.encoder_config import EncoderConfig
from mig_jax.models.networks.layers import (
    ACTIVATIONS,
    FLOAT32,
    Build,
    Embed,
    Linear,
    attend,
    layer_norm,
    segment_mask,
    segment_positions,
)
from mig_jax.models.networks.sharding import constrain
from mig_jax.models.networks.weights import WeightRule


class EncoderStates(NamedTuple):
    """The result of a forward pass.

    Args:
      last_BxLxD: the states after the last layer; at padding they mean nothing.
      hidden: the embeddings and the states after each layer, num_layers + 1 of ``[B, L, D]``; empty unless asked for.
      pooled_BxD: ``tanh(dense(first token))`` of the row's first text; None without the pooler.
    """

    last_BxLxD: Float[Array, "B L D"]
    hidden: tuple[Float[Array, "B L D"], ...]
    pooled_BxD: Float[Array, "B D"] | None


class Embeddings(nnx.Module):
    """``LN(word[id] + position[pos] + type[t])``."""

    def __init__(self, config: EncoderConfig, options: Build, *, rngs: nnx.Rngs):
        dim, rest = config.hidden_size, {"dtype": options.dtype, "rngs": rngs}
        self.word = Embed(config.vocab_size, dim, axes=("vocab", "embed"), **rest)
        self.position = Embed(config.first_position + config.max_positions, dim, **rest)
        self.type = Embed(config.types, dim, **rest) if config.types else None
        self.norm = layer_norm(dim, config.eps, **rest)

    def __call__(
        self, id_BxL: Int[Array, "B L"], position_BxL: Int[Array, "B L"], type_BxL: Int[Array, "B L"] | None
    ) -> Float[Array, "B L D"]:
        """Ids must be in range; no types are types of 0."""
        x_BxLxD = self.word(id_BxL) + self.position(position_BxL)
        if self.type is not None:
            x_BxLxD += self.type(jnp.zeros_like(id_BxL) if type_BxL is None else type_BxL)
        return self.norm(x_BxLxD)


class SelfAttention(nnx.Module):
    """``softmax(q k^T / sqrt K + bias) v`` in H heads, with its output projection."""

    def __init__(self, config: EncoderConfig, options: Build, *, rngs: nnx.Rngs):
        dim, split = config.hidden_size, (config.num_heads, config.hidden_size // config.num_heads)
        rest = {"bias": True, "dtype": options.dtype, "rngs": rngs}
        self.query = Linear((dim,), split, ("embed", "heads", None), **rest)
        self.key = Linear((dim,), split, ("embed", "heads", None), **rest)
        self.value = Linear((dim,), split, ("embed", "heads", None), **rest)
        self.output = Linear(split, (dim,), ("heads", None, "embed"), **rest)
        self.how = options.attention

    def __call__(
        self,
        x_BxLxD: Float[Array, "B L D"],
        mask_BxLxL: Bool[Array, "B L L"],
        bias_HxLxL: Float[Array, "H L L"] | None,
    ) -> Float[Array, "B L D"]:
        """Attend within the mask."""
        parts = (self.query(x_BxLxD), self.key(x_BxLxD), self.value(x_BxLxD))
        q, k, v = (constrain(part, "batch", None, "heads", None) for part in parts)
        return self.output(attend(q, k, v, mask_BxLxL, bias_HxLxS=bias_HxLxL, how=self.how))


class EncoderLayer(nnx.Module):
    """``x <- LN(x + attention(x)); x <- LN(x + down(act(up(x))))`` (Vaswani et al. 2017, post-norm)."""

    def __init__(self, config: EncoderConfig, options: Build, *, rngs: nnx.Rngs):
        dim, ffn, rest = config.hidden_size, config.intermediate_size, {"dtype": options.dtype, "rngs": rngs}
        self.attention = SelfAttention(config, options, rngs=rngs)
        self.attention_norm = layer_norm(dim, config.eps, **rest)
        self.up = Linear((dim,), (ffn,), ("embed", "mlp"), bias=True, **rest)
        self.down = Linear((ffn,), (dim,), ("mlp", "embed"), bias=True, **rest)
        self.output_norm = layer_norm(dim, config.eps, **rest)
        self.activation = config.activation

    def __call__(
        self,
        x_BxLxD: Float[Array, "B L D"],
        mask_BxLxL: Bool[Array, "B L L"],
        bias_HxLxL: Float[Array, "H L L"] | None,
    ) -> Float[Array, "B L D"]:
        """One layer; shapes in and out are equal."""
        x_BxLxD = self.attention_norm(x_BxLxD + self.attention(x_BxLxD, mask_BxLxL, bias_HxLxL))
        x_BxLxD = constrain(x_BxLxD, "batch", None, None)
        h_BxLxF = constrain(ACTIVATIONS[self.activation](self.up(x_BxLxD)), "batch", None, "mlp")
        return constrain(self.output_norm(x_BxLxD + self.down(h_BxLxF)), "batch", None, None)


class Encoder(nnx.Module):
    """The network.

    Args:
      relative: L -> what is added to the scores of every layer, ``[H, L, L]``, entry (h, i, j) for token i looking at
        token j; MPNet's, other families have none.
      pooler: build the family's own pooling layer too; sentence embedders do without.
    """

    def __init__(
        self,
        config: EncoderConfig,
        options: Build = FLOAT32,
        *,
        relative: nnx.Module | None = None,
        pooler: bool = False,
        rngs: nnx.Rngs,
    ):
        dim = config.hidden_size
        self.config = config
        self.embeddings = Embeddings(config, options, rngs=rngs)
        self.relative = relative
        self.layers = nnx.List([EncoderLayer(config, options, rngs=rngs) for _ in range(config.num_layers)])
        rest = {"bias": True, "dtype": options.dtype, "rngs": rngs}
        self.pooler = Linear((dim,), (dim,), ("embed", None), **rest) if pooler else None

    def __call__(
        self,
        id_BxL: Int[Array, "B L"],
        segment_BxL: Int[Array, "B L"],
        type_BxL: Int[Array, "B L"] | None = None,
        *,
        hidden_states: bool = False,
    ) -> EncoderStates:
        """Encode B rows of L tokens.

        Args:
          id_BxL: token ids in [0, vocab_size).
          segment_BxL: 0 at padding; a token sees the tokens of its own number only and its position counts from the
            first of them. An attention mask is this with one text a row. At most max_positions of one number in a run.
          type_BxL: token types in [0, types); None is all 0.
          hidden_states: keep every layer's output.
        """
        mask_BxLxL = segment_mask(segment_BxL)
        # Within a segment, places differ by as much as positions do: one bias serves all rows, however packed.
        bias_HxLxL = None if self.relative is None else self.relative(id_BxL.shape[1])
        position_BxL = segment_positions(segment_BxL) + self.config.first_position
        x_BxLxD = constrain(self.embeddings(id_BxL, position_BxL, type_BxL), "batch", None, None)
        hidden = [x_BxLxD]
        for layer in self.layers:
            x_BxLxD = layer(x_BxLxD, mask_BxLxL, bias_HxLxL)
            hidden.append(x_BxLxD)
        return EncoderStates(x_BxLxD, tuple(hidden) if hidden_states else (), self._pooled(x_BxLxD, segment_BxL))

    def _pooled(self, x_BxLxD: Float[Array, "B L D"], segment_BxL: Int[Array, "B L"]) -> Float[Array, "B D"] | None:
        if self.pooler is None:
            return None
        first_B = jnp.argmax(segment_BxL > 0, axis=1)  # the first token, wherever the padding stands
        return jnp.tanh(self.pooler(jnp.take_along_axis(x_BxLxD, first_B[:, None, None], axis=1)[:, 0]))


ATTENTION = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "output",
}
"""BERT's names of the four maps -> those of ``SelfAttention``."""


def dense(source: str, target: str, how: str = "outputs") -> tuple[WeightRule, WeightRule]:
    """The two rules of a ``Linear``."""
    kernel = WeightRule(f"{source}.weight", f"{target}.kernel", how)
    return kernel, WeightRule(f"{source}.bias", f"{target}.bias", "flat")


def norm(source: str, target: str) -> tuple[WeightRule, WeightRule]:
    """The two rules of a layer norm."""
    return WeightRule(f"{source}.weight", f"{target}.scale"), WeightRule(f"{source}.bias", f"{target}.bias")


def stack_rules(
    *,
    typed: bool = True,
    pooler: bool = False,
    attention: Mapping[str, str] = ATTENTION,
    attention_norm: str = "attention.output.LayerNorm",
) -> tuple[WeightRule, ...]:
    """The rules of an ``Encoder`` for checkpoints that name things as BERT's do, but for what is given."""
    layer, at = "encoder.layer.{n}.", "layers.{n}."
    rules = [
        WeightRule("embeddings.word_embeddings.weight", "embeddings.word.embedding"),
        WeightRule("embeddings.position_embeddings.weight", "embeddings.position.embedding"),
        *norm("embeddings.LayerNorm", "embeddings.norm"),
        *norm(layer + attention_norm, at + "attention_norm"),
        *dense(layer + "intermediate.dense", at + "up"),
        *dense(layer + "output.dense", at + "down"),
        *norm(layer + "output.LayerNorm", at + "output_norm"),
    ]
    for source, target in attention.items():
        rules += dense(layer + source, f"{at}attention.{target}", "inputs" if target == "output" else "outputs")
    if typed:
        rules.append(WeightRule("embeddings.token_type_embeddings.weight", "embeddings.type.embedding"))
    if pooler:
        rules += dense("pooler.dense", "pooler")
    return tuple(rules)


def ignored(base: str, *, pooler: bool) -> tuple[str, ...]:
    """Patterns of what these checkpoints hold beside the encoder: buffers, heads for other tasks, an unused pooler.

    Args:
      base: as in ``WeightMap``.
      pooler: the model has one.
    """
    start = f"({re.escape(base)})?"
    buffers = rf"{start}embeddings\.position_ids"  # 0 1 2 ..., in files of transformers < 4.31
    heads = r"(cls|lm_head|classifier|qa_outputs)\..*"
    return (buffers, heads) if pooler else (buffers, heads, rf"{start}pooler\.dense\..*")
