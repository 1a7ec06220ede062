"""Which rows carry which tags, and what becomes of both when tags merge.

K tags, Z pairs of a row and a tag that it carries. Tags are ordered by their names, so that nothing below
depends on the order of a pool's rows.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from mig_jax.pool import PRESENT, Pool

DROPPED = -1


@dataclass(frozen=True)
class Tags:
    """The tags of some rows.

    Args:
      names: the tags, sorted, each once.
      owner, tag: a row and the number of a tag that it carries, each pair once; int64 ``[Z]``.
      rows: how many rows there are, those without a tag included.
    """

    names: tuple[str, ...]
    owner: Int64[np.ndarray, " Z"]
    tag: Int64[np.ndarray, " Z"]
    rows: int

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def count(self) -> Int64[np.ndarray, " K"]:
        """Rows that carry each tag; int64 ``[K]``."""
        return np.bincount(self.tag, minlength=len(self)).astype(np.int64)

    @cached_property
    def rank(self) -> Int64[np.ndarray, " K"]:
        """The position of each tag when the most frequent is first, equals by name; int64 ``[K]``."""
        order = np.argsort(-self.count, kind="stable")
        rank = np.empty(len(self), np.int64)
        rank[order] = np.arange(len(self))
        return rank

    def first_of(
        self, group: Int64[np.ndarray, " K"], last: Bool[np.ndarray, " K"] | None = None
    ) -> Int64[np.ndarray, " K"]:
        """The most frequent tag of each tag's group, equals by name; int64 ``[K]``.

        Args:
          group: any numbers.
          last: tags that come after all others of their group, however frequent.
        """
        order = np.lexsort((self.rank, group) if last is None else (self.rank, last, group))
        opens = np.diff(group[order], prepend=group[order][:1] - 1) != 0
        into = np.empty(len(self), np.int64)
        into[order] = order[opens][np.cumsum(opens) - 1]
        return into

    def merged(self, into: Int64[np.ndarray, " K"]) -> tuple["Tags", Int64[np.ndarray, " K"]]:
        """The tags that are left, and the new number of what each old one became (DROPPED: of nothing).

        Args:
          into: the number of the tag that each maps to, or DROPPED; a tag that others map to maps to itself.
        """
        left = np.flatnonzero(into == np.arange(len(self)))
        number = np.full(len(self) + 1, DROPPED, np.int64)  # the last: of what is dropped
        number[left] = np.arange(len(left))
        became = number[into]
        tag = became[self.tag]
        owner, tag = self.owner[tag >= 0], tag[tag >= 0]
        return _tags(tuple(self.names[at] for at in left.tolist()), owner, tag, self.rows), became


@dataclass(frozen=True)
class Merging:
    """What a step makes of K tags.

    Args:
      into: the number of the tag that each maps to, DROPPED for one that is left out; int64 ``[K]``.
      of_label: facts of a label that others merged into, by its number.
      of_tag: the same of a tag that merged into another.
      notes: for the user.
    """

    into: Int64[np.ndarray, " K"]
    of_label: dict[int, dict[str, Any]] = field(default_factory=dict)
    of_tag: dict[int, dict[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def tags_of(pool: Pool) -> Tags:
    """The tags of the pool's annotated rows; the empty tag is none. Scores are not asked for."""
    annotated = np.flatnonzero((pool.status == 0) & (pool.tag_state == PRESENT))
    position = np.full(len(pool), -1, np.int64)
    position[annotated] = np.arange(len(annotated))
    owner = position[np.repeat(np.arange(len(pool)), np.diff(pool.tag_ptr))]
    used = np.bincount(pool.tag_idx[owner >= 0], minlength=len(pool.tag_names)) > 0
    order = sorted((at for at, name in enumerate(pool.tag_names) if name and used[at]), key=pool.tag_names.__getitem__)
    number = np.full(len(pool.tag_names), -1, np.int64)
    number[order] = np.arange(len(order))
    tag = number[pool.tag_idx]
    keep = (owner >= 0) & (tag >= 0)
    return _tags(tuple(pool.tag_names[at] for at in order), owner[keep], tag[keep], len(annotated))


def _tags(names: tuple[str, ...], owner: np.ndarray, tag: np.ndarray, rows: int) -> Tags:
    """Each pair once."""
    owner, tag = np.divmod(np.unique(owner * max(len(names), 1) + tag), max(len(names), 1))
    return Tags(names, owner, tag, rows)
