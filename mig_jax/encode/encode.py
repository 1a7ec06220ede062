"""Pool -> Encoded: which rows can be chosen, their labels and their score.

A row needs its tags and its score. Rows without are counted by reason and left out; a row whose tags are all outside
the vocabulary stays (its gain is 0), as in yichengchen24/MIG @969eb53. A score that is negative or no finite number is
a mistake in the pool, not a missing annotation: it stops the run unless rows may be skipped.
"""

import json
from collections.abc import Collection
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64

from mig_jax.encode.encoded import Encoded
from mig_jax.errors import UserError
from mig_jax.pool import ABSENT, BAD_VALUE, REASONS, Pool

SMALLEST, LARGEST = 1e-15, 1e15  # scores in between cannot leave float32's range, whatever phi and the number of picks
PUBLISHED_TAGS = "configs/valid_tag_path.json of github.com/yichengchen24/MIG holds the published 4,531 tags"


def encode(
    pool: Pool,
    *,
    valid_tags: Collection[str] | None = None,
    score: str = "deita",
    turns: str = "mean",
    normalize: bool = False,
    on_error: str = "raise",
    bare: bool = False,
) -> Encoded:
    """The usable rows of a pool as label ids and scores.

    Args:
      pool: as loaded; a column used as the score must have been loaded with it (``columns=``).
      valid_tags: only these tags are labels (exact match); None: every tag of the pool but the empty one.
      score: "deita": s = quality_t * complexity_t over the turns t; "ifd"; or the path of a numeric column.
      turns: "mean" over the turns (MIG) or "sum" (DEITA).
      normalize: divide each score by the row's number of tags, repeats counted (the reference's --norm).
      bare: a pool without any tags, or without any scores, is taken as it is: no labels, scores of 1. For systems that
        need neither; where some rows have them, the others are left out as ever.
      on_error: "skip" drops rows whose score is negative or no finite number instead of refusing the pool.

    Raises:
      UserError: such a score, with file and line; no usable row; no row with a valid tag.
    """
    usable = pool.status == 0
    dropped = {reason: int((pool.status == i).sum()) for i, reason in enumerate(REASONS) if i}
    unlabelled = bare and bool((pool.tag_state[usable] == ABSENT).all())
    for state, reason in ((ABSENT, "no tags"), (BAD_VALUE, "tags are not a list of strings")):
        if not unlabelled:
            usable = _drop(usable, pool.tag_state == state, reason, dropped)
    value, missing, wrong = scores(pool, score, turns)
    scored = not (bare and bool(missing[usable].all()))
    if not scored:
        value, missing, wrong = np.ones(len(pool)), np.zeros(len(pool), bool), np.zeros(len(pool), bool)
    absent = f"no {score} score" if score in ("deita", "ifd") else f"no number at {score}"
    usable = _drop(usable, missing, absent, dropped)
    with np.errstate(invalid="ignore"):
        wrong |= usable & ~((value == 0) | ((value >= SMALLEST) & (value <= LARGEST)))
    faulty = np.flatnonzero(usable & wrong)
    if len(faulty) and on_error != "skip":
        row = int(faulty[0])
        more = f" ({len(faulty)} such rows)" if len(faulty) > 1 else ""
        raise UserError(
            f"{pool.where(row)}: {_told(pool, row, score, value[row])}; scores must be finite numbers >= 0"
            f" (0, or from {SMALLEST:g} to {LARGEST:g}){more}."
            " pool.on_error=skip leaves such rows out"
        )
    usable = _drop(usable, wrong, f"{score} score negative or not a finite number", dropped)
    row = np.flatnonzero(usable).astype(np.int64)
    dropped = {reason: count for reason, count in dropped.items() if count}
    if not len(row):
        raise UserError(f"no usable row among {len(pool)}: {_listed(dropped)}. {_hint(score, dropped)}")
    ptr, idx, labels, tag_count = _labels(pool, row, valid_tags)
    if not len(idx) and not unlabelled:
        raise UserError(
            f"no row of the pool has a valid tag ({len(row)} usable rows, {len(pool.tag_names)} distinct tags such as"
            f" {', '.join(map(repr, pool.tag_names[:3])) or 'none'}): do pool.valid_tags and the pool belong together?"
        )
    value = value[row]
    if normalize:
        value = value / np.maximum(tag_count, 1)
    return Encoded(row, ptr, idx, value, labels, dropped, faulty.astype(np.int64), tag_count, scored)


def read_valid_tags(path: Path | str) -> frozenset[str]:
    """A tag vocabulary: a JSON list of strings, or a text file with a tag on each line.

    Raises:
      UserError: the file is missing, or holds something else.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"pool.valid_tags={path}: no such file; {PUBLISHED_TAGS}, and null uses every tag") from None
    except IsADirectoryError:
        raise UserError(f"pool.valid_tags={path}: is a folder; it must be a file of tags ({PUBLISHED_TAGS})") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"pool.valid_tags={path}: cannot be read as UTF-8 text ({error})") from None
    if not text.lstrip().startswith(("[", "{")):
        tags = [line for line in text.splitlines() if line]
    else:
        try:
            tags = json.loads(text)
        except ValueError as error:
            raise UserError(f"pool.valid_tags={path}: not JSON ({error})") from None
    if not isinstance(tags, list) or not tags or not all(isinstance(tag, str) for tag in tags):
        raise UserError(
            f"pool.valid_tags={path}: must hold a JSON list of strings, or one tag a line; {PUBLISHED_TAGS}"
        )
    return frozenset(tags)


def _drop(usable: np.ndarray, rows: np.ndarray, reason: str, dropped: dict[str, int]) -> np.ndarray:
    hit = usable & rows
    dropped[reason] = dropped.get(reason, 0) + int(hit.sum())
    return usable & ~rows


def scores(pool: Pool, score: str, turns: str) -> tuple[Float64[np.ndarray, " R"], Bool[np.ndarray, " R"], np.ndarray]:
    """(value, missing, wrong) of every row; value is meaningless where one of the others is true."""
    if score == "deita":
        return _deita(pool, turns)
    if score == "ifd":
        return pool.ifd.copy(), np.isnan(pool.ifd), np.zeros(len(pool), bool)
    if score not in pool.columns:
        raise UserError(f"score.from={score}: not a column of this pool (deita, ifd or a numeric column's path)")
    state = pool.columns_state[score]
    return pool.columns[score].copy(), state == ABSENT, state == BAD_VALUE


def _deita(pool: Pool, turns: str):
    counts, complexity_counts = np.diff(pool.quality_ptr), np.diff(pool.complexity_ptr)
    missing = (pool.quality_state == ABSENT) | (pool.complexity_state == ABSENT)
    wrong = ~missing & ((pool.quality_state == BAD_VALUE) | (pool.complexity_state == BAD_VALUE))
    missing |= ~wrong & (counts == 0)
    wrong |= ~missing & (counts != complexity_counts)
    good = ~missing & ~wrong
    value = np.full(len(pool), np.nan)
    rows = np.flatnonzero(good)
    if len(rows):
        entry = np.repeat(good, counts)
        quality, complexity = pool.quality[entry], pool.complexity[np.repeat(good, complexity_counts)]
        product = quality * complexity
        first = np.cumsum(counts[rows]) - counts[rows]
        value[rows] = np.add.reduceat(product, first)
        if turns == "mean":
            value[rows] /= counts[rows]
        # A negative score is wrong even where the product, or the sum over turns, is not.
        wrong[rows] |= np.minimum.reduceat(np.minimum(quality, complexity), first) < 0
    return value, missing, wrong


def _told(pool: Pool, row: int, score: str, value: float) -> str:
    if score != "deita":
        return f"{score}={value}"
    quality = pool.quality[pool.quality_ptr[row] : pool.quality_ptr[row + 1]].tolist()
    complexity = pool.complexity[pool.complexity_ptr[row] : pool.complexity_ptr[row + 1]].tolist()
    if BAD_VALUE in (pool.quality_state[row], pool.complexity_state[row]):
        return "quality or complexity scores are not a list of finite numbers"
    if len(quality) != len(complexity):
        return f"{len(quality)} quality scores but {len(complexity)} complexity scores"
    return f"quality {quality} x complexity {complexity}"


def _labels(pool: Pool, row: np.ndarray, valid_tags: Collection[str] | None):
    """CSR of label ids without repeats, the sorted names, and the number of valid tags with repeats."""
    names = np.empty(len(pool.tag_names), object)
    names[:] = pool.tag_names
    valid = np.fromiter(
        (name != "" and (valid_tags is None or name in valid_tags) for name in names), bool, count=len(names)
    )
    counts = np.diff(pool.tag_ptr)
    owner = np.repeat(np.arange(len(pool)), counts)
    position = np.full(len(pool), -1, np.int64)
    position[row] = np.arange(len(row))
    keep = (position[owner] >= 0) & valid[pool.tag_idx]
    owner, tag = position[owner[keep]], pool.tag_idx[keep]
    used = np.flatnonzero(np.bincount(tag, minlength=len(names)))
    order = sorted(used.tolist(), key=lambda i: names[i])
    label_of = np.full(len(names), -1, np.int64)
    label_of[order] = np.arange(len(order))
    label = label_of[tag]
    tag_count = np.bincount(owner, minlength=len(row))
    first = _first(owner, label, len(row), max(len(order), 1))
    owner, label = owner[first], label[first].astype(np.int32)
    ptr = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(row)))]).astype(np.int64)
    return ptr, label, tuple(pool.tag_names[i] for i in order), tag_count


def _first(owner: np.ndarray, label: np.ndarray, rows: int, labels: int) -> np.ndarray:
    """Whether each entry is the first of its owner with this label.

    Few rows repeat a tag, and only theirs are put in order: to sort keys alone takes a tenth of sorting their places.
    """
    key = owner * labels + label
    ordered = np.sort(key)
    repeats = np.zeros(rows, bool)
    repeats[ordered[1:][ordered[1:] == ordered[:-1]] // labels] = True
    at = np.flatnonzero(repeats[owner])
    first = np.ones(len(key), bool)
    first[at] = False
    first[at[np.unique(key[at], return_index=True)[1]]] = True
    return first


def _listed(dropped: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "nothing was read"


def _hint(score: str, dropped: dict[str, int]) -> str:
    if any("tag" in reason for reason in dropped):
        return "Tags are read from annotation.instag.content; pool.fields.tags=PATH names another place"
    if score == "deita":
        return (
            "DEITA scores are read from annotation.deita; pool.fields.quality= and .complexity= name other places,"
            " score.from=COLUMN another score"
        )
    return "score.from= names another score"
