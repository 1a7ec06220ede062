"""CaR's scorer of instruction pairs (Ge et al. 2024): XLM-R, a mix of all its layers, and a small regression network.

Source of names and numerics: github.com/IronBeliever/CaR, Ranking/comet, at 3357044; that is COMET (Rei et al. 2020)
with one text in place of three.

Published scorers are Lightning checkpoints (.ckpt), which are pickles and are never read here. Convert one first, where
torch is installed and the file is trusted: the tensors of its ``state_dict`` under their own names
(``encoder.model.*``, ``layerwise_attention.*``, ``estimator.ff.*``) into model.safetensors, and beside it the encoder's
config.json, with the ``hidden_sizes`` of hparams.yaml added to it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.encoder_config import EncoderConfig, roberta_config
from mig_jax.models.networks import xlm_roberta
from mig_jax.models.networks.encoder import Encoder, dense
from mig_jax.models.networks.layers import FLOAT32, Build, Linear
from mig_jax.models.networks.weights import WeightMap, WeightRule


@dataclass(frozen=True)
class CarConfig:
    """The encoder, and the widths of the regression network's layers but the last, which is 1 wide."""

    encoder: EncoderConfig
    hidden_sizes: tuple[int, ...] = (2048, 1024)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any], where: str = "config.json") -> "CarConfig":
        """XLM-R's fields and ``hidden_sizes``; UserError with every field that is missing or unusable."""
        wrong, sizes, encoder = [], raw.get("hidden_sizes", [2048, 1024]), None
        try:
            encoder = roberta_config(raw, where)
        except UserError as error:
            wrong.append(str(error))
        if not isinstance(sizes, list) or not sizes or any(type(size) is not int or size < 1 for size in sizes):
            wrong.append(f"{where}: hidden_sizes must be a list of whole numbers >= 1, not {sizes!r}")
        if wrong or encoder is None:
            raise UserError("\n".join(wrong))
        return cls(encoder, tuple(sizes))


class LayerMix(nnx.Module):
    """``gamma sum_n softmax(w)_n (x_n - mean_n) / sqrt(var_n + 1e-12)`` over the encoder's states x_0 .. x_N.

    Mean and variance are over all numbers of all tokens of a text, and not token by token as a layer norm's.
    """

    def __init__(self, states: int, *, dtype: str):
        self.scalar = nnx.List([nnx.Param(jnp.zeros(1, dtype)) for _ in range(states)])
        self.gamma = nnx.Param(jnp.ones(1, dtype))

    def __call__(self, x_NxBxLxD: Float[Array, "N B L D"], mask_BxL: Float[Array, "B L"]) -> Float[Array, "B L D"]:
        """The mix of N states, float32; ``mask_BxL`` is 1 at tokens and 0 at padding."""
        mask_BxLx1 = mask_BxL[..., None]
        count_Bx1x1 = jnp.maximum(mask_BxLx1.sum((1, 2), keepdims=True), 1.0) * x_NxBxLxD.shape[-1]
        x_NxBxLxD = x_NxBxLxD.astype(jnp.float32) * mask_BxLx1
        centred_NxBxLxD = (x_NxBxLxD - x_NxBxLxD.sum((2, 3), keepdims=True) / count_Bx1x1) * mask_BxLx1
        var_NxBx1x1 = (centred_NxBxLxD**2).sum((2, 3), keepdims=True) / count_Bx1x1
        share_N = jax.nn.softmax(jnp.concatenate([w[...] for w in self.scalar]).astype(jnp.float32))
        mixed_BxLxD = jnp.einsum("n,nbld->bld", share_N, centred_NxBxLxD / jnp.sqrt(var_NxBx1x1 + 1e-12))
        return self.gamma[...].astype(jnp.float32) * mixed_BxLxD


class CarScorer(nnx.Module):
    """The score of a text: mix the layers, average over its tokens, then ``Linear, Tanh, ..., Linear`` to one number.

    The text is "Instruction: {i} Input: {x} Response: {o}" in CaR.
    """

    def __init__(self, config: CarConfig, options: Build = FLOAT32, *, rngs: nnx.Rngs):
        self.encoder = Encoder(config.encoder, options, rngs=rngs)
        self.mix = LayerMix(config.encoder.num_layers + 1, dtype=options.dtype)
        sizes = (config.encoder.hidden_size, *config.hidden_sizes, 1)
        rest = {"bias": True, "dtype": options.dtype, "rngs": rngs}
        self.estimator = nnx.List([Linear((i,), (o,), (None, None), **rest) for i, o in pairwise(sizes)])

    def __call__(self, id_BxL: Int[Array, "B L"], segment_BxL: Int[Array, "B L"]) -> Float[Array, " B"]:
        """Scores of B texts, one a row, float32.

        Args:
          id_BxL, segment_BxL: as in ``Encoder``; segments are 1, or 0 at padding, which may stand left or right.
        """
        return self.regress(self.embed(id_BxL, segment_BxL))

    def embed(self, id_BxL: Int[Array, "B L"], segment_BxL: Int[Array, "B L"]) -> Float[Array, "B D"]:
        """The average over a text's tokens of its mixed states, float32."""
        hidden = self.encoder(id_BxL, segment_BxL, hidden_states=True).hidden
        mask_BxL = (segment_BxL > 0).astype(jnp.float32)
        mixed_BxLxD = self.mix(jnp.stack(hidden), mask_BxL)
        return mixed_BxLxD.sum(1) / jnp.maximum(mask_BxL.sum(1, keepdims=True), 1.0)

    def regress(self, x_BxD: Float[Array, "B D"]) -> Float[Array, " B"]:
        """The regression network alone."""
        x_BxF = x_BxD.astype(self.estimator[0].kernel[...].dtype)
        for layer in list(self.estimator)[:-1]:
            x_BxF = jnp.tanh(layer(x_BxF))
        return self.estimator[-1](x_BxF)[:, 0].astype(jnp.float32)


def weight_map(config: CarConfig) -> WeightMap:
    """The ``state_dict`` of a scorer; the encoder's tensors may lack their prefix ``encoder.model.``."""
    base = "encoder.model."
    encoder = xlm_roberta.weight_map()
    rules = [WeightRule(base + rule.source, "encoder." + rule.target, rule.transform) for rule in encoder.rules]
    rules.append(WeightRule("layerwise_attention.scalar_parameters.{n}", "mix.scalar.{n}"))
    rules.append(WeightRule("layerwise_attention.gamma", "mix.gamma"))
    for n in range(len(config.hidden_sizes) + 1):
        rules += dense(f"estimator.ff.{3 * n}", f"estimator.{n}")  # between two of them: the activation and dropout
    ignored = tuple(f"({re.escape(base)})?{pattern}" for pattern in encoder.ignored)
    return WeightMap(tuple(rules), ignored, base=base)
