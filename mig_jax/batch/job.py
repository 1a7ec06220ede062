"""What a model does to many texts, cut into batches."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int64, Shaped


class Planned(Protocol):
    """A batch: a ``models.packing.Batch``, or ``models.generate.Prompts`` of answers."""

    @property
    def text(self) -> Int64[np.ndarray, " n"]:
        """The indices of its texts."""
        ...


@dataclass(frozen=True)
class Job:
    """N texts, and how a model makes D numbers of each.

    Args:
      plan: every batch; decided by the texts and the settings alone, so that each process and each life has the same. A
        text that no model need see is in none.
      cost: the tokens of each text, for progress; int64 ``[N]``.
      run: some of the batches -> each with its n texts' results, in the order given. The weights are loaded when the
        first is asked for.
      width: D; None: batches have their own, and shorter results are filled with ``blank``.
      dtype: of the results.
      blank: the result of a text in no batch.
      notes: what a person should know of the texts ("12 were cut").
      flops: floating-point operations of a batch, all of its padding included; None: not known. flops_dtype: of the
        products.
      release: lets the weights go, so that the next pass has the memory; ``run`` would load them again.
    """

    plan: Sequence[Any]  # of Planned
    cost: Int64[np.ndarray, " N"]
    run: Callable[[Iterable[Any]], Iterator[tuple[Any, Shaped[np.ndarray, "n D"]]]]
    width: int | None
    dtype: type[np.generic] = np.float32
    blank: float = 0
    notes: tuple[str, ...] = ()
    flops: Callable[[Any], float] | None = None
    flops_dtype: str = "float32"
    release: Callable[[], None] = lambda: None

    def tokens(self, numbers: Iterable[int]) -> int:
        """The tokens of some batches."""
        return sum(int(self.cost[self.plan[number].text].sum()) for number in numbers)
