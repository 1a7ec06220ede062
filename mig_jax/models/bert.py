"""BERT (Devlin et al. 2019): the config read from config.json, the embeddings, the encoder, the weight map.

Letters as in encoder.py. Source of names and numerics: transformers/models/bert/modeling_bert.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from mig_jax.errors import UserError
from mig_jax.models.encoder import ACTIVATIONS, EncoderLayer, layer_norm, segment_mask, segment_positions
from mig_jax.models.weights import Rule


@dataclass(frozen=True)
class BertConfig:
    """What of a config.json decides the computation; dropout is left out, there is no training here.

    Args:
      vocab_size, hidden_size, num_layers, num_heads, intermediate_size, max_positions, type_vocab_size: counts, >= 1.
      eps: of every layer norm.
      activation: a key of ``encoder.ACTIVATIONS``.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    max_positions: int
    type_vocab_size: int = 2
    eps: float = 1e-12
    activation: str = "gelu"

    @classmethod
    def from_json(cls, raw: Mapping[str, Any], where: str = "config.json") -> "BertConfig":
        """Read the Hugging Face names; UserError with every field that is missing or unusable."""
        counts = {
            "vocab_size": "vocab_size",
            "hidden_size": "hidden_size",
            "num_layers": "num_hidden_layers",
            "num_heads": "num_attention_heads",
            "intermediate_size": "intermediate_size",
            "max_positions": "max_position_embeddings",
            "type_vocab_size": "type_vocab_size",
        }
        wrong = [
            f"{name} must be a whole number >= 1, not {raw.get(name)!r}"
            for name in counts.values()
            if type(raw.get(name)) is not int or raw[name] < 1
        ]
        eps, activation = raw.get("layer_norm_eps", 1e-12), raw.get("hidden_act", "gelu")
        if type(eps) not in (int, float) or not 0 <= eps < 1:
            wrong.append(f"layer_norm_eps must be a number in [0, 1), not {eps!r}")
        if not isinstance(activation, str) or activation not in ACTIVATIONS:
            wrong.append(f"hidden_act is {activation!r}; there is {', '.join(ACTIVATIONS)}")
        if raw.get("position_embedding_type", "absolute") != "absolute":
            wrong.append(f"position_embedding_type is {raw['position_embedding_type']!r}; there is absolute")
        if not wrong and raw["hidden_size"] % raw["num_attention_heads"]:
            wrong.append(f"hidden_size {raw['hidden_size']} is no multiple of {raw['num_attention_heads']} heads")
        if wrong:
            raise UserError(f"{where}: " + "; ".join(wrong))
        return cls(**{field: raw[name] for field, name in counts.items()}, eps=float(eps), activation=activation)


class Encoded(NamedTuple):
    """What a forward pass gives.

    Args:
      last_BxLxD: the states after the last layer; at padding they mean nothing.
      hidden: the embeddings and the states after each layer, num_layers + 1 of ``[B, L, D]``; empty unless asked for.
      pooled_BxD: ``tanh(dense(first token of the row))``; None without the pooler.
    """

    last_BxLxD: Float[Array, "B L D"]
    hidden: tuple[Float[Array, "B L D"], ...]
    pooled_BxD: Float[Array, "B D"] | None


class BertEmbeddings(nnx.Module):
    """``LN(word[id] + position[pos] + type[t])``."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs):
        dim = config.hidden_size
        self.word = nnx.Embed(config.vocab_size, dim, rngs=rngs)
        self.position = nnx.Embed(config.max_positions, dim, rngs=rngs)
        self.type = nnx.Embed(config.type_vocab_size, dim, rngs=rngs)
        self.norm = layer_norm(dim, config.eps, rngs=rngs)

    def __call__(
        self, id_BxL: Int[Array, "B L"], position_BxL: Int[Array, "B L"], type_BxL: Int[Array, "B L"]
    ) -> Float[Array, "B L D"]:
        """Ids must be in range: the gathers do not look (a lookup that does costs more than a layer's attention)."""
        return self.norm(_rows(self.word, id_BxL) + _rows(self.position, position_BxL) + _rows(self.type, type_BxL))


def _rows(table: nnx.Embed, index_BxL: Int[Array, "B L"]) -> Float[Array, "B L D"]:
    return table.embedding[...].at[index_BxL].get(mode="promise_in_bounds")


class Bert(nnx.Module):
    """The encoder. ``pooler`` builds BERT's own pooling layer too; sentence embedders do without."""

    def __init__(self, config: BertConfig, *, pooler: bool = False, rngs: nnx.Rngs):
        self.embeddings = BertEmbeddings(config, rngs=rngs)
        self.layers = nnx.List(
            [
                EncoderLayer(
                    config.hidden_size,
                    config.num_heads,
                    config.intermediate_size,
                    activation=config.activation,
                    eps=config.eps,
                    rngs=rngs,
                )
                for _ in range(config.num_layers)
            ]
        )
        self.pooler = nnx.Linear(config.hidden_size, config.hidden_size, rngs=rngs) if pooler else None

    def __call__(
        self,
        id_BxL: Int[Array, "B L"],
        segment_BxL: Int[Array, "B L"],
        type_BxL: Int[Array, "B L"] | None = None,
        *,
        hidden_states: bool = False,
    ) -> Encoded:
        """Encode B rows of L tokens.

        Args:
          id_BxL: token ids in [0, vocab_size).
          segment_BxL: 0 at padding; a token sees the tokens of its own number only and its position counts from the
            first of them. An attention mask is this with one text a row. At most max_positions of one number in a run.
          type_BxL: token types in [0, type_vocab_size); None is all 0.
          hidden_states: keep every layer's output.
        """
        if type_BxL is None:
            type_BxL = jnp.zeros_like(id_BxL)
        mask_BxLxL = segment_mask(segment_BxL)
        x_BxLxD = self.embeddings(id_BxL, segment_positions(segment_BxL), type_BxL)
        hidden = [x_BxLxD]
        for layer in self.layers:
            x_BxLxD = layer(x_BxLxD, mask_BxLxL)
            hidden.append(x_BxLxD)
        pooled_BxD = None if self.pooler is None else jnp.tanh(self.pooler(x_BxLxD[:, 0]))
        return Encoded(x_BxLxD, tuple(hidden) if hidden_states else (), pooled_BxD)


_LAYER = r"(?:bert\.)?encoder\.layer\.(\d+)\."
_NORM = {"weight|gamma": "scale", "bias|beta": "bias"}  # gamma and beta: checkpoints of 2018


def _linear(source: str, target: str) -> tuple[Rule, Rule]:
    return Rule(source + r"\.weight", target + ".kernel", "transpose"), Rule(source + r"\.bias", target + ".bias")


def _norm(source: str, target: str) -> tuple[Rule, ...]:
    return tuple(Rule(rf"{source}\.(?:{names})", f"{target}.{field}") for names, field in _NORM.items())


def weight_rules(*, pooler: bool = False) -> tuple[Rule, ...]:
    """The weight map of BERT checkpoints, with or without the prefix ``bert.``; heads for other tasks are ignored."""
    embeddings = r"(?:bert\.)?embeddings\."
    pool = r"(?:bert\.)?pooler\.dense"
    return (
        Rule(embeddings + r"word_embeddings\.weight", "embeddings.word.embedding"),
        Rule(embeddings + r"position_embeddings\.weight", "embeddings.position.embedding"),
        Rule(embeddings + r"token_type_embeddings\.weight", "embeddings.type.embedding"),
        *_norm(embeddings + "LayerNorm", "embeddings.norm"),
        *_linear(_LAYER + r"attention\.self\.query", r"layers.\1.attention.query"),
        *_linear(_LAYER + r"attention\.self\.key", r"layers.\1.attention.key"),
        *_linear(_LAYER + r"attention\.self\.value", r"layers.\1.attention.value"),
        *_linear(_LAYER + r"attention\.output\.dense", r"layers.\1.attention.output"),
        *_norm(_LAYER + r"attention\.output\.LayerNorm", r"layers.\1.attention_norm"),
        *_linear(_LAYER + r"intermediate\.dense", r"layers.\1.up"),
        *_linear(_LAYER + r"output\.dense", r"layers.\1.down"),
        *_norm(_LAYER + r"output\.LayerNorm", r"layers.\1.output_norm"),
        *(_linear(pool, "pooler") if pooler else (Rule(pool + r"\..*", None),)),
        Rule(embeddings + "position_ids", None),  # a buffer, 0 1 2 ..., in files of transformers < 4.31
        Rule(r"cls\..*", None),  # masked-word and next-sentence heads
    )
