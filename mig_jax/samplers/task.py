"""What a sampler is given, and what a system has to say of itself."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float64

from mig_jax.core.progress import Progress, silent
from mig_jax.encode import Encoded, Need
from mig_jax.engine import Snapshot
from mig_jax.engine.greedy import PICKS_PER_CALL, SHORTLIST
from mig_jax.labels.label_graph import Propagation
from mig_jax.objective.phi import Phi
from mig_jax.pool import Pool
from mig_jax.samplers.config import SamplerOptions
from mig_jax.samplers.limits import Kind, Limits
from mig_jax.samplers.order import Order
from mig_jax.vectors.vectors import Vectors


@dataclass(frozen=True)
class Rows:
    """The points as text, read where they lie.

    Args:
      raw: the bytes of each row, as they came.
      dialogs: (role, content) of every turn of each row.
    """

    raw: Callable[[np.ndarray], Iterator[bytes]]
    dialogs: Callable[[np.ndarray], Iterator[list[tuple[str, str]]]]


@dataclass(frozen=True)
class SamplingTask:
    """A pool and the settings of one selection; M points.

    Args:
      encoded: the usable rows.
      propagation: P of the label graph.
      phi: of E(D).
      options: the sampler's own settings (its ``Options``).
      ranking: what the sampler ranks by where its options name a score (DEITA's sum, IFD, CaR's), NaN where a point has
        none; float64 ``[M]``.
      vectors: an embedding of each point, where the sampler needs them.
      rows: the texts, where the sampler needs them.
      limits: what may be picked; None: everything.
      seed: of samplers that draw.
      mesh: of the engine; None: all devices.
      resume, on_snapshot: the snapshot to resume from, and a callback that receives new snapshots. A snapshot's
        ``state`` is of the type that the sampler names.
    """

    encoded: Encoded
    propagation: Propagation
    phi: Phi
    options: Any
    ranking: Float64[np.ndarray, " M"] | None = None
    vectors: Vectors | None = None
    rows: Rows | None = None
    limits: Limits | None = None
    seed: int = 42
    mesh: Mesh | None = None
    shortlist_size: int = SHORTLIST
    picks_per_call: int = PICKS_PER_CALL
    heap_device: str = "auto"
    progress: Progress = field(default=silent)
    resume: Snapshot | None = None
    on_snapshot: Callable[[Snapshot], None] | None = None

    @property
    def gain(self) -> str:
        """Which gain earns the labels' shares: "first_order" or "exact"."""
        return getattr(self.options, "gain", "first_order")

    @property
    def limit(self) -> Limits:
        """``limits``, or none."""
        return Limits.none(len(self.encoded)) if self.limits is None else self.limits


class Sampler(NamedTuple):
    """``sample(task, n)`` picks n points, or fewer where its own rules run dry; ``n`` is at most the points there are.

    Args:
      options: its settings: a struct whose fields are those of conf/sampler/NAME.yaml. One with a field ``score`` is
        given a ``ranking``.
      nested: a smaller budget is a prefix of a larger one; else every budget is sampled for itself.
      by_labels: it ranks by labels, so picks can be explained by the labels that earned them.
      needs: what it needs of a row; rows that lack it are left out (``mig_jax.encode.encode``).
      compat_needs: what the reference requires of a row in addition, with ``compat``.
      refuses: the limits that make no sense for it, and why.
      takes_all: it takes every point, whatever n.
      state: the NamedTuple class of the state in its snapshots, or a union of such classes (see
        ``mig_jax.engine.checkpoint``); None: it makes no snapshots.
    """

    sample: Callable[[SamplingTask, int], Order]
    options: type[SamplerOptions] = SamplerOptions
    nested: Callable[[SamplingTask], bool] = lambda task: True
    by_labels: bool = False
    needs: tuple[Need, ...] = ()
    compat_needs: tuple[Need, ...] = ()
    refuses: Mapping[Kind, str] = {}
    takes_all: bool = False
    state: Any = None

    def needs_of(self, options: SamplerOptions) -> tuple[Need, ...]:
        """What it needs of a row with these settings."""
        return self.needs + (self.compat_needs if getattr(options, "compat", False) else ())


def texts_of_points(pool: Pool, encoded: Encoded) -> Rows:
    """The points of a pool as text."""
    return Rows(
        lambda points: pool.read_rows(encoded.row[points]), lambda points: pool.each_dialog(encoded.row[points])
    )
