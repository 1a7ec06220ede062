"""Low-rank adapters: ``y = x W + (alpha / r) (x A) B`` with W fixed (Hu et al. 2021, arXiv 2106.09685).

A is drawn as peft draws it, uniform within ``1 / sqrt(inputs)``; B begins at zero, so the adapted model begins as the
model itself.
"""

import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mig_jax.core.errors import UserError
from mig_jax.models.networks.layers import Linear
from mig_jax.models.networks.sharding import axes_of
from mig_jax.models.networks.weights import WeightMap


class Lora(NamedTuple):
    """Settings of the adapters.

    Args:
      rank: r.
      alpha: the scale is ``alpha / rank``.
      targets: the linear maps that get an adapter, by their names in a Hugging Face checkpoint.
    """

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ("q_proj", "v_proj")


class AdapterParam(nnx.Param):
    """A number of an adapter: what is trained."""


class AdaptedLinear(nnx.Module):
    """A linear map with an adapter beside it.

    Args:
      base: the map itself.
      rngs: of A.
    """

    def __init__(self, base: Linear, lora: Lora, *, rngs: nnx.Rngs):
        inputs = base.kernel.get_value().shape[: base.contracted]
        outputs = base.kernel.get_value().shape[base.contracted :]
        axes = axes_of(base.kernel)
        bound = 1 / math.sqrt(math.prod(inputs))
        drawn = jax.random.uniform(rngs.params(), (*inputs, lora.rank), jnp.float32, -bound, bound)
        self.base = base
        self.a = AdapterParam(drawn, axes=(*axes[: base.contracted], None))
        self.b = AdapterParam(jnp.zeros((lora.rank, *outputs), jnp.float32), axes=(None, *axes[base.contracted :]))
        self.scale = lora.alpha / lora.rank

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """``base(x) + scale (x A) B``."""
        low = jnp.tensordot(x, self.a[...].astype(x.dtype), self.base.contracted)
        return self.base(x) + jnp.tensordot(low, self.b[...].astype(x.dtype), 1) * self.scale

    def merged(self) -> Float[Array, "..."]:
        """The kernel of the one linear map that does the same: ``W + scale A B``."""
        change = jnp.tensordot(self.a[...], self.b[...], 1) * self.scale
        kernel = self.base.kernel[...]
        return (kernel.astype(jnp.float32) + change).astype(kernel.dtype)


def add_adapters(model: nnx.Module, weights: WeightMap, lora: Lora, *, rngs: nnx.Rngs) -> None:
    """Put an adapter beside every linear map that ``lora.targets`` names.

    Raises:
      UserError: the model has no linear map of a name; names those that it has.
    """
    paths = dict(linear_maps(model, weights))
    missing = set(lora.targets) - {name for name, _ in paths.values()}
    if missing:
        names = ", ".join(sorted({name for name, _ in paths.values()}))
        raise UserError(
            "the model has no such linear map",
            key="sft.lora.targets",
            value=", ".join(sorted(missing)),
            allowed=f"may be {names}",
        )
    for path, (name, base) in paths.items():
        if name in lora.targets:
            *above, last = path
            setattr(_module(model, above), last, AdaptedLinear(base, lora, rngs=rngs))


def merge_adapters(model: nnx.Module) -> None:
    """Replace every adapted map by the one linear map that does the same."""
    adapted = [(path, module) for path, module in nnx.iter_graph(model) if isinstance(module, AdaptedLinear)]
    for path, module in adapted:
        module.base.kernel[...] = module.merged()
        *above, last = path
        setattr(_module(model, above), str(last), module.base)


def linear_maps(model: nnx.Module, weights: WeightMap) -> Iterator[tuple[tuple, tuple[str, Linear]]]:
    """Path -> (name in a checkpoint, module) of the linear maps of the layers."""
    for path, module in nnx.iter_graph(model):
        if not isinstance(module, Linear):
            continue
        target = ".".join(map(str, path)) + ".kernel"
        for rule in weights.rules:
            if "{n}" in rule.target and re.fullmatch(re.escape(rule.target).replace(r"\{n\}", r"\d+"), target):
                yield path, (rule.source.removesuffix(".weight").rpartition(".")[2], module)


def _module(model: nnx.Module, path: Sequence) -> nnx.Module:
    for part in path:
        model = model[part] if isinstance(part, int) else getattr(model, part)  # type: ignore[index]
    return model
