"""Rows of tags without a pool."""

from collections.abc import Iterable, Sequence

import numpy as np

from mig_jax.commands.vocabulary import Tags


def tags(rows: Iterable[Sequence[str]]) -> Tags:
    """The rows' tags."""
    sets = [set(row) for row in rows]
    names = sorted(set().union(*sets))
    number = {name: at for at, name in enumerate(names)}
    pairs = sorted((row, number[tag]) for row, tags in enumerate(sets) for tag in tags)
    owner, tag = np.array(pairs, np.int64).reshape(-1, 2).T
    return Tags(tuple(names), owner, tag, len(sets))


def merges(found: Tags, into: np.ndarray) -> dict[str, str | None]:
    """tag -> what it became, of those that did not stay; None: it was dropped."""
    told = {name: None if at < 0 else found.names[at] for name, at in zip(found.names, into.tolist(), strict=True)}
    return {name: other for name, other in told.items() if name != other}


def circle(degrees: dict[str, float]):
    """Embeds each tag at its angle; the cosine distance of two is 1 - cos of the angle between them."""

    def embed(names: Sequence[str]) -> np.ndarray:
        angle = np.deg2rad([degrees[name] for name in names])
        return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)

    return embed
