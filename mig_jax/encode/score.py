"""The score of a row: what ``score.from`` names, one of the pool's numbers or a product of several."""

from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

from mig_jax.core.errors import UserError
from mig_jax.pool import ABSENT, BAD_VALUE, Pool

LISTS = {"deita": ("quality", "complexity"), "quality": ("quality",), "complexity": ("complexity",)}
"""What has a number a turn: the pool's lists whose product over the turns counts."""
COLUMNS = {"car": "annotation.CaR"}
"""What else has a name: columns, by their paths."""
NAMES = (*LISTS, "ifd", *COLUMNS)
NONE = "none"
"""No score: every row counts 1. A pool that has tags and nothing else can be selected from by these alone."""
ALLOWED = f"{', '.join(NAMES)}, the path of a numeric column, a product of these (deita*ifd), or none (all rows alike)"

_PLACES = dict.fromkeys(
    LISTS, "DEITA scores are read from annotation.deita; pool.fields.quality= and .complexity= name other places"
)
_PLACES["ifd"] = "IFD is read from ifd_score.content; pool.fields.ifd= names another place"
_PLACES["car"] = "CaR's score is read from annotation.CaR"


class Factor(NamedTuple):
    """One of the numbers that a score is the product of; R rows.

    Args:
      name: one of ``NAMES``, or a column's path.
      value: meaningless where one of the others is true.
      missing: there is none.
      wrong: it is no finite number; of lists also one that is negative, or another number of turns.
    """

    name: str
    value: Float64[np.ndarray, " R"]
    missing: Bool[np.ndarray, " R"]
    wrong: Bool[np.ndarray, " R"]

    @property
    def lacking(self) -> str:
        """What a row lacks, for the counts of rows that are left out."""
        return _lacking(self.name)


def _lacking(name: str) -> str:
    return f"no {name} score" if name in NAMES else f"no number at {name}"


def factor_names(score: str, key: str = "score.from") -> tuple[str, ...]:
    """``quality*annotation.CaR`` -> ("quality", "annotation.CaR"); blanks around a ``*`` do not count.

    The names of ``NAMES`` mean what they say even where a row has a key so called.

    Raises:
      UserError: it is no such product; names ``key``.
    """
    names = tuple(name.strip() for name in score.split("*"))
    if not all(part for name in names for part in name.split(".")) or (len(names) > 1 and NONE in names):
        raise UserError(key=key, value=score, allowed=ALLOWED)
    return names


def columns_read(score: str, key: str = "score.from") -> tuple[str, ...]:
    """The columns that a pool has to be loaded with (``columns=``) for this score."""
    names = (COLUMNS.get(name, name) for name in factor_names(score, key))
    return tuple(dict.fromkeys(name for name in names if name not in (*NAMES, NONE)))


def factors(pool: Pool, score: str, turns: str, key: str = "score.from") -> list[Factor]:
    """What the score is the product of.

    Args:
      turns: "mean" over a row's turns or "sum", of the numbers that are one a turn.
      key: what named the score, for messages.

    Raises:
      UserError: a column that the pool was not loaded with.
    """
    names, wanted = factor_names(score, key), columns_read(score, key)
    without = [name for name in wanted if name not in pool.columns]
    if without:
        raise UserError(
            f"not a column of this pool: {', '.join(without)} (load_pool(..., columns={list(wanted)!r}) reads what it"
            f" needs); {key} may be {ALLOWED}",
            key=key,
            value=score,
        )
    return [_factor(pool, name, turns) for name in names]


def scores(
    pool: Pool, score: str, turns: str, key: str = "score.from"
) -> tuple[Float64[np.ndarray, " R"], Bool[np.ndarray, " R"], Bool[np.ndarray, " R"]]:
    """(value, missing, wrong) of every row; value is meaningless where one of the others is true."""
    return product(factors(pool, score, turns, key))


def product(
    parts: Sequence[Factor],
) -> tuple[Float64[np.ndarray, " R"], Bool[np.ndarray, " R"], Bool[np.ndarray, " R"]]:
    """(value, missing, wrong) of the factors' product: missing where one of them is, else wrong where one is."""
    value, missing, wrong = (array.copy() for array in parts[0][1:])
    for part in parts[1:]:
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # encode reports what leaves the range
            value = value * part.value
        missing |= part.missing
        wrong |= part.wrong
    if len(parts) > 1:  # of two that are negative the product is not; a single one may be, to be ranked by
        for part in parts:
            wrong |= part.value < 0
    return value, missing, wrong & ~missing


def _factor(pool: Pool, name: str, turns: str) -> Factor:
    if name == NONE:
        return Factor(name, np.ones(len(pool)), np.zeros(len(pool), bool), np.zeros(len(pool), bool))
    if name in LISTS:
        return _of_turns(pool, name, turns)
    if name == "ifd":
        return Factor(name, pool.ifd, np.isnan(pool.ifd), np.zeros(len(pool), bool))
    state = pool.columns_state[COLUMNS.get(name, name)]
    return Factor(name, pool.columns[COLUMNS.get(name, name)], state == ABSENT, state == BAD_VALUE)


def _of_turns(pool: Pool, name: str, turns: str) -> Factor:
    """The mean or sum over the turns of the product of a row's lists."""
    states = [getattr(pool, f"{one}_state") for one in LISTS[name]]
    counts = [np.diff(getattr(pool, f"{one}_ptr")) for one in LISTS[name]]
    missing = np.logical_or.reduce([state == ABSENT for state in states])
    wrong = ~missing & np.logical_or.reduce([state == BAD_VALUE for state in states])
    missing |= ~wrong & (counts[0] == 0)
    wrong |= ~missing & (counts[0] != counts[-1])
    good = ~missing & ~wrong
    value = np.full(len(pool), np.nan)
    rows = np.flatnonzero(good)
    if len(rows):
        lists = [getattr(pool, one)[np.repeat(good, count)] for one, count in zip(LISTS[name], counts, strict=True)]
        first = np.cumsum(counts[0][rows]) - counts[0][rows]
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            value[rows] = np.add.reduceat(np.multiply.reduce(lists), first)
        if turns == "mean":
            value[rows] /= counts[0][rows]
        # A negative score is wrong even where the product, or the sum over turns, is not.
        wrong[rows] |= np.minimum.reduceat(np.minimum.reduce(lists), first) < 0
    return Factor(name, value, missing, wrong)


def fault_of(pool: Pool, row: int, score: str, parts: Sequence[Factor], value: float) -> str:
    """What is wrong with a row's score ``value``."""
    for part in parts:
        if part.wrong[row] or part.value[row] < 0:
            return _fault_of(pool, row, part) if len(parts) == 1 else f"{_fault_of(pool, row, part)} (of {score})"
    return _fault_of(pool, row, parts[0]) if len(parts) == 1 else f"{score}={value}"


def _fault_of(pool: Pool, row: int, part: Factor) -> str:
    if part.name not in LISTS:
        return f"{part.name}={part.value[row]}"
    names = LISTS[part.name]
    if any(getattr(pool, f"{name}_state")[row] == BAD_VALUE for name in names):
        return f"{' or '.join(names)} scores are not a list of finite numbers"
    lists = {}
    for name in names:
        ptr = getattr(pool, f"{name}_ptr")
        lists[name] = getattr(pool, name)[ptr[row] : ptr[row + 1]].tolist()
    if len(set(map(len, lists.values()))) > 1:
        return " but ".join(f"{len(numbers)} {name} scores" for name, numbers in lists.items())
    return " x ".join(f"{name} {numbers}" for name, numbers in lists.items())


def hint(score: str, lacking: Collection[str], key: str = "score.from") -> str:
    """Where the numbers that rows lack (``Factor.lacking``) are looked for, and what else the score may be."""
    names = [name for name in factor_names(score) if _lacking(name) in lacking]
    places = dict.fromkeys(_PLACES[name] for name in names if name in _PLACES)
    near = [close for name in names for close in get_close_matches(name, NAMES, 1) if close != name]
    return ". ".join((*places, f"{key}= may be {ALLOWED}")) + (f"; did you mean {near[0]}?" if near else "")
