"""Which labels earned a pick's gain, and what part of it: arrays over all picks, a list for one."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any, overload

import numpy as np
from jaxtyping import Float64, Int64

from mig_jax.core.json_files import clean_text

MOST_LABELS = 8
Shares = Sequence[tuple[str, float]]


@dataclass(frozen=True, eq=False)
class LabelShares(Sequence[Shares]):
    """(label, share of the gain) of n picks; one pick is a list, largest share first.

    share = gain of the label / gain of the pick, from 0 to 1; the shares of a pick sum to 1, or to 0 where it gained
    nothing.

    ``ptr`` int64 ``[n+1]``; the labels of pick i are ``names[label[j]]`` with shares ``share[j]``, j from ptr[i] to
    ptr[i + 1].
    """

    names: Sequence[str]
    ptr: Int64[np.ndarray, " n1"]
    label: Int64[np.ndarray, " Z"]
    share: Float64[np.ndarray, " Z"]

    @classmethod
    def of_gains(
        cls,
        names: Sequence[str],
        ptr: Int64[np.ndarray, " n1"],
        label: Int64[np.ndarray, " Z"],
        gain: Float64[np.ndarray, " Z"],
    ) -> "LabelShares":
        """From what each label of a pick gained, >= 0."""
        owner = np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
        whole = np.bincount(owner, gain, len(ptr) - 1)[owner]
        return cls(names, ptr, label, np.divide(gain, whole, out=np.zeros(len(gain)), where=whole > 0))

    @classmethod
    def of(cls, rows: Sequence[Shares]) -> "LabelShares":
        """From lists."""
        if isinstance(rows, LabelShares):
            return rows
        pairs = list(chain.from_iterable(rows))
        number: dict[str, int] = {}
        label = [number.setdefault(name, len(number)) for name, _ in pairs]
        return cls(
            [*number],
            np.array([*accumulate(map(len, rows), initial=0)], np.int64),
            np.array(label, np.int64),
            np.array([share for _, share in pairs], np.float64),
        )

    def __len__(self) -> int:
        return len(self.ptr) - 1

    @overload
    def __getitem__(self, at: int) -> Shares: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Shares]: ...
    def __getitem__(self, at: int | slice) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        if not -len(self) <= at < len(self):
            raise IndexError(at)
        a, b = self.ptr[at % len(self)], self.ptr[at % len(self) + 1]
        order = np.argsort(-self.share[a:b], kind="stable") + a
        return [(self.names[int(self.label[i])], float(self.share[i])) for i in order.tolist()]

    def biggest(self) -> "LabelShares":
        """The at most 8 biggest shares of each pick, biggest first, names in order among equals."""
        clean = [clean_text(name) for name in self.names]
        number = {name: i for i, name in enumerate(sorted(set(clean)))}
        rank = np.array([number[name] for name in clean], np.int64)[self.label] if clean else self.label
        count = np.diff(self.ptr)
        owner = np.repeat(np.arange(len(self)), count)
        order = np.lexsort((rank, -self.share, owner))
        largest = order[np.arange(len(order)) - self.ptr[owner] < MOST_LABELS]
        ptr = np.concatenate([[0], np.cumsum(np.minimum(count, MOST_LABELS))])
        return LabelShares([*number], ptr, rank[largest], self.share[largest])


def biggest(shares: Shares) -> list[tuple[str, float]]:
    """As ``LabelShares.biggest``, of one pick."""
    named = sorted(((clean_text(label), float(share)) for label, share in shares), key=lambda s: (-s[1], s[0]))
    return named[:MOST_LABELS]
