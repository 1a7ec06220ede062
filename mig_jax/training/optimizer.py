"""AdamW with clipping by the global norm, as torch has them; float32 throughout."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float32

_CLIP_EPS = 1e-6  # torch.nn.utils.clip_grad_norm_ divides by norm + 1e-6
_MATRICES = ("kernel", "embedding")


class Optimizer(NamedTuple):
    """Settings of AdamW (Loshchilov and Hutter 2019).

    Args:
      weight_decay: of matrices only; biases and norms have none.
      clip_norm: the largest global norm of a gradient; None: no clipping.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float | None = 1.0

    def transform(self) -> optax.GradientTransformation:
        """Gradients -> the step for learning rate 1, before its sign is turned."""
        adam = optax.scale_by_adam(b1=self.beta1, b2=self.beta2, eps=self.eps)
        if not self.weight_decay:
            return adam
        return optax.chain(adam, optax.add_decayed_weights(self.weight_decay, mask=matrices))


def matrices(params: nnx.State) -> Any:
    """Which parameters are matrices, by the names of their variables: a kernel of heads has three axes here, and a bias
    of heads two, where the checkpoint has two and one."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _name(path) in _MATRICES, params)


def _name(path: tuple[Any, ...]) -> str:
    names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
    return str(names[-1]) if names else ""


def global_norm(gradients: nnx.State) -> Float32[Array, ""]:
    """``sqrt(sum g^2)`` over all parameters, float32."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(gradients)))


def clip_factor(norm: Float32[Array, ""], clip_norm: float | None) -> Float32[Array, ""]:
    """What gradients are multiplied by: ``min(1, clip_norm / (norm + 1e-6))``."""
    return jnp.float32(1.0) if clip_norm is None else jnp.minimum(1.0, clip_norm / (norm + _CLIP_EPS))
