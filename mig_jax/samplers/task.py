"""What a sampler is given, and what a system has to say of itself."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float64

from mig_jax.encode.encoded import Encoded
from mig_jax.engine import Snapshot
from mig_jax.engine.greedy import C1, SEGMENT
from mig_jax.gain.phi import Phi
from mig_jax.graph.label_graph import Propagation
from mig_jax.runtime.progress import Progress, silent
from mig_jax.samplers.order import Order


@dataclass(frozen=True)
class Task:
    """A pool and the settings of one selection; M points.

    Args:
      encoded: the usable rows.
      propagation: P of the label graph.
      phi: of E(D).
      gain: "first_order" or "exact".
      compat: the reference's behaviour where ours differs.
      seed: of samplers that draw.
      ifd: IFD of each point, NaN where absent; float64 ``[M]``.
      mesh: of the engine; None: all devices.
      resume, on_snapshot: of the engine.
    """

    encoded: Encoded
    propagation: Propagation
    phi: Phi
    ifd: Float64[np.ndarray, " M"]
    gain: str = "first_order"
    compat: bool = False
    seed: int = 42
    mesh: Mesh | None = None
    c1: int = C1
    segment: int = SEGMENT
    inner: str = "auto"
    progress: Progress = field(default=silent)
    resume: Snapshot | None = None
    on_snapshot: Callable[[Snapshot], None] | None = None


class Sampler(NamedTuple):
    """``sample(task, n)`` picks n points, or fewer where its own rules run dry; ``n`` is at most the points there are.

    ``nested``: a smaller budget is a prefix of a larger one; else every budget is sampled for itself. ``by_labels``: it
    ranks by labels, so picks can be explained by the labels that earned them.
    """

    sample: Callable[[Task, int], Order]
    nested: Callable[[Task], bool] = lambda task: True
    by_labels: bool = False
