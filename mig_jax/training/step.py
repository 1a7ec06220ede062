"""One update: gradients summed over its batches, divided once by its trained tokens, clipped, applied.

Parameters, gradients, moments and norms are float32; the forward and backward passes run in ``dtype``. A batch adds the
gradient of its summed loss, so any cut of an update into batches gives the same update but for rounding.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float32, Int

from mig_jax.models.networks.sharding import RULES
from mig_jax.training.lora import AdapterParam
from mig_jax.training.loss import summed_nll
from mig_jax.training.optimizer import Optimizer, clip_factor, global_norm
from mig_jax.training.packing import Arrays


class TrainState(NamedTuple):
    """What an update changes, and what it leaves.

    Args:
      graphdef: the structure of the model.
      params: what is trained, float32: all parameters, or the adapters.
      frozen: all other parameters.
      moments: the optimizer's state.
    """

    graphdef: nnx.GraphDef
    params: nnx.State
    frozen: nnx.State
    moments: Any


class Sums(NamedTuple):
    """What the batches of an update add up.

    Args:
      gradients: of the summed loss by ``params``, float32.
      loss: ``sum -log p`` over trained tokens.
    """

    gradients: nnx.State
    loss: Float32[Array, ""]


class Metrics(NamedTuple):
    """What an update reports.

    Args:
      loss: the mean over the trained tokens of the update, before it.
      grad_norm: of the mean loss, before clipping.
    """

    loss: Float32[Array, ""]
    grad_norm: Float32[Array, ""]


def init_state(model: nnx.Module, optimizer: Optimizer, *, adapters: bool, mesh: Mesh | None = None) -> TrainState:
    """Split a model into what is trained and what is not; moments lie where their parameters do.

    The arrays of the model are used up by the first update: no second copy of the parameters exists.

    Args:
      adapters: train the adapters only.
      mesh: on whose devices the model lies; None: one device.
    """
    kind = AdapterParam if adapters else nnx.Param
    graphdef, params, frozen = nnx.split(model, kind, ...)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    moments = optimizer.transform().init(params)
    if mesh is not None:  # the count of updates is a new number, which would lie on the first device alone
        whole = NamedSharding(mesh, PartitionSpec())
        moments = jax.tree.map(lambda leaf: leaf if leaf.ndim else jax.device_put(leaf, whole), moments)
    return TrainState(graphdef, params, frozen, moments)


def zero_sums(params: nnx.State) -> Sums:
    """Nothing added yet."""
    return Sums(jax.tree.map(jnp.zeros_like, params), jnp.float32(0))


class Step(NamedTuple):
    """The two compiled functions of an update, for one optimizer and one way to compute.

    Args:
      add_batch: (params, frozen, sums, batch) -> sums with the batch's loss and gradient; ``sums`` is used up.
      apply: (params, moments, sums, trained tokens, learning rate) -> params, moments, empty sums, metrics; the first
        three are used up, so that no second copy of them exists.
    """

    add_batch: Callable[[nnx.State, nnx.State, Sums, Arrays], Sums]
    apply: Callable[..., tuple[nnx.State, Any, Sums, Metrics]]


def make_step(state: TrainState, optimizer: Optimizer, *, dtype: str = "float32", remat: bool = False) -> Step:
    """Compile the functions for a state; what they return lies where the state's arrays lie.

    Args:
      dtype: of the forward and backward passes: float32 or bfloat16.
      remat: keep each layer's input only, and compute the rest again on the way back.
    """
    graphdef, transform = state.graphdef, optimizer.transform()
    of_params, of_moments = (jax.tree.map(lambda leaf: leaf.sharding, tree) for tree in (state.params, state.moments))
    of_sums: Any = Sums(of_params, None)  # type: ignore[arg-type]  (where the loss lies is left to the compiler)

    def loss_of(params: nnx.State, frozen: nnx.State, batch: Arrays) -> Float32[Array, ""]:
        model = nnx.merge(graphdef, _cast(params, dtype), _cast(frozen, dtype))
        last_BxLxD = model(batch.id_BxL, batch.segment_BxL, remat=remat).last_BxLxD
        x_TxD = last_BxLxD.reshape(-1, last_BxLxD.shape[-1])
        position_P, target_P, count = map(jnp.asarray, (batch.position_P, batch.target_P, batch.count))
        return summed_nll(x_TxD, model.output_kernel, position_P, target_P, count)

    @functools.partial(jax.jit, donate_argnames=("sums",), out_shardings=of_sums)
    def add_batch(params: nnx.State, frozen: nnx.State, sums: Sums, batch: Arrays) -> Sums:
        with jax.default_matmul_precision("float32" if dtype == "float32" else "default"):
            loss, gradients = jax.value_and_grad(loss_of)(params, frozen, batch)
        added = jax.tree.map(lambda total, new: total + new.astype(jnp.float32), sums.gradients, gradients)
        return Sums(added, sums.loss + loss)

    @functools.partial(
        jax.jit,
        donate_argnames=("params", "moments", "sums"),
        out_shardings=(of_params, of_moments, of_sums, None),
    )
    def apply(
        params: nnx.State,
        moments: Any,
        sums: Sums,
        trained_tokens: Int[Array, ""],
        learning_rate: Float32[Array, ""],
    ) -> tuple[nnx.State, Any, Sums, Metrics]:
        mean = jax.tree.map(lambda g: g / trained_tokens, sums.gradients)
        norm = global_norm(mean)
        clipped = jax.tree.map(lambda g: g * clip_factor(norm, optimizer.clip_norm), mean)
        change, moments = transform.update(clipped, moments, params)
        params = jax.tree.map(lambda p, c: p - learning_rate * c, params, change)
        return params, moments, zero_sums(params), Metrics(sums.loss / trained_tokens, norm)

    return Step(add_batch, apply)


def place_batch(batch: Arrays, mesh: Mesh | None) -> Arrays:
    """A batch on the devices of a mesh: each has its own sequences; the positions, which are few, are on all.

    Every process gives the whole batch, and each of its devices takes its part.
    """
    if mesh is None:
        return batch
    sequences, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((RULES["batch"],), ()))
    shardings = Arrays(sequences, sequences, whole, whole, whole)  # type: ignore[arg-type]

    def placed(value: np.ndarray, sharding: NamedSharding) -> jax.Array:
        value = np.asarray(value)
        return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])

    return Arrays(*map(placed, batch, shardings))  # type: ignore[arg-type]


def update(
    step: Step, state: TrainState, sums: Sums, batches: Sequence[Arrays], learning_rate: float
) -> tuple[TrainState, Sums, Metrics]:
    """One update from its batches.

    Args:
      sums: empty, of ``zero_sums`` or of the update before.
    """
    for batch in batches:
        sums = step.add_batch(state.params, state.frozen, sums, batch)
    tokens = np.int32(sum(int(batch.count) for batch in batches))
    params, moments, sums, metrics = step.apply(state.params, state.moments, sums, tokens, np.float32(learning_rate))
    return state._replace(params=params, moments=moments), sums, metrics


def _cast(state: nnx.State, dtype: str) -> nnx.State:
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, state)
