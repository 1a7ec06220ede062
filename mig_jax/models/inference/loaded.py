"""The parts that embedders and language models have in common: weights on their devices, batches in flight."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float32

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.checkpoint import ModelSpec
from mig_jax.models.checkpoints.tensors import Tensor
from mig_jax.models.networks.families import Family
from mig_jax.models.networks.layers import Build
from mig_jax.models.networks.sharding import RULES
from mig_jax.models.networks.weights import load_model

_ALL_BAD = 32  # so many texts without one finite number: the weights are at fault, no single text
_IN_FLIGHT = 4  # batches sent to the device before the first of them is waited for

Item = TypeVar("Item")
Sent = TypeVar("Sent")
Received = TypeVar("Received")


@dataclass(frozen=True)
class LoadedModel:
    """A model with its weights on their devices.

    Args:
      graphdef, state: the model, split; the state goes into compiled functions as an argument.
      mesh: the devices that hold the weights and share the rows of a batch; None: the default device.
    """

    graphdef: nnx.GraphDef
    state: nnx.State
    mesh: Mesh | None = None

    @property
    def exact(self) -> bool:
        """Whether the weights are float32; products are then computed in float32 too."""
        return jax.tree.leaves(self.state)[0].dtype == np.float32

    @property
    def row_multiple(self) -> int:
        """The number of rows of a batch must be a multiple of this, so that all devices get equally many."""
        return 1 if self.mesh is None else int(np.prod([self.mesh.shape[name] for name in RULES["batch"]]))

    def on_mesh(self) -> AbstractContextManager:
        """The context in which the model runs."""
        return nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)

    def rows(self, *arrays: np.ndarray) -> tuple[jax.Array | np.ndarray, ...]:
        """Arrays whose first axis is rows, each row on the devices that compute it."""
        if self.mesh is None:
            return arrays
        return tuple(jax.device_put(arrays, NamedSharding(self.mesh, PartitionSpec(RULES["batch"]))))


def load_weights(
    family: Family, config: Any, tensors: Sequence[Tensor], spec: ModelSpec, mesh: Mesh | None, *, head: bool
) -> LoadedModel:
    """A checkpoint's weights, in the spec's precision.

    Args:
      family, config, tensors: the checkpoint's; config as the family reads it.
      head: with the decoder's map to the vocabulary.

    Raises:
      UserError: see ``load_model``.
    """
    options, weights = Build(spec.dtype, spec.attention), family.weights(config, head)
    model = load_model(lambda: family.build(config, options, head), weights, tensors, mesh)
    return LoadedModel(*nnx.split(model), mesh)


def in_flight(
    items: Iterable[Item], send: Callable[[Item], Sent], receive: Callable[[Item, Sent], Received]
) -> Iterator[Received]:
    """``receive(item, send(item))`` of each item, in order; the device computes the next items meanwhile.

    Args:
      send: starts the work of an item and does not wait for it.
      receive: waits for the result.
    """
    pending: deque[tuple[Item, Sent]] = deque()
    for item in items:
        pending.append((item, send(item)))
        if len(pending) >= _IN_FLIGHT:
            yield receive(*pending.popleft())
    while pending:
        yield receive(*pending.popleft())


def with_finite(
    results: Iterable[tuple[Item, Float32[np.ndarray, "n D"]]], what: str
) -> Iterator[tuple[Item, Float32[np.ndarray, "n D"]]]:
    """The same batches. A single text may have numbers beyond the range of the type, which the caller judges.

    Raises:
      UserError: the first texts have no finite number at all; ``what`` names the model and the numbers.
    """
    seen, finite = 0, False
    for item, value_nxD in results:
        finite = finite or bool(np.isfinite(value_nxD).any())
        seen += len(value_nxD)
        if not finite and seen >= _ALL_BAD:
            raise UserError(f"{what} are not finite, so its weights hold NaN or infinity")
        yield item, value_nxD
