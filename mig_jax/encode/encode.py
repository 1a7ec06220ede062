"""Pool -> Encoded: which rows can be picked, their labels and their score.

A row is left out only if it lacks what its sampler needs (``needs``); rows that are left out are counted by reason. A
row whose tags are all outside the vocabulary stays (its gain is 0), as in yichengchen24/MIG @969eb53. A score that is
negative or not a finite number is a mistake in the pool, not a missing annotation: it stops the run unless rows may be
skipped.
"""

from collections.abc import Collection
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

from mig_jax.core.errors import UserError
from mig_jax.encode.encoded import Encoded
from mig_jax.encode.score import NONE, Factor, factors, fault_of, hint, product
from mig_jax.labels.valid_tags import ValidTags, labels_of
from mig_jax.pool import ABSENT, BAD_VALUE, REASONS, Pool

SMALLEST, LARGEST = 1e-15, 1e15  # scores in between cannot leave float32's range, whatever phi and the number of picks
Need = Literal["labels", "score", "ranking", "vectors", "rows"]
"""What a sampler may need of each row: tags, the score s_d, the number it ranks by, an embedding, the text. Every row
has the last two."""


class RankingSource(NamedTuple):
    """The number that a sampler ranks by: ``source`` and ``turns`` as in ``score.*``; ``key`` names it in messages."""

    source: str
    turns: str
    key: str


def encode(
    pool: Pool,
    *,
    valid_tags: ValidTags | None = None,
    score: str = "deita",
    turns: str = "mean",
    normalize: bool = False,
    on_error: str = "raise",
    needs: Collection[Need] = ("labels", "score"),
    ranking: RankingSource | None = None,
) -> Encoded:
    """The usable rows of a pool as label ids and scores.

    Args:
      pool: as loaded; a column used as the score must have been loaded with it (``columns=``).
      valid_tags: only these tags are labels (exact match); None: every tag of the pool but the empty one. A vocabulary
        also has aliases: a tag that is one counts as its label, before a row's repeats collapse.
      score: "deita": s = quality_t * complexity_t over the turns t; "quality", "complexity", "ifd", "car", the path of
        a numeric column; or a product of these, "deita*ifd"; "none": every row counts 1.
      turns: of what is a number a turn: "mean" over the turns (MIG) or "sum" (DEITA).
      normalize: divide each score by the row's number of tags, repeats counted (the reference's --norm).
      needs: what the sampler needs; a row that lacks it is left out. Where tags are not needed, a row without tags has
        no labels. Where the score is not needed, a row without one has score 0, or 1 if no row has one.
      ranking: what the sampler ranks by, where "ranking" is needed.
      on_error: "skip" drops rows whose score is negative or no finite number instead of refusing the pool.

    Raises:
      UserError: such a score, with file and line; no usable row; no row with a valid tag.
    """
    usable = pool.status == 0
    dropped = {reason: int((pool.status == i).sum()) for i, reason in enumerate(REASONS) if i}
    if "labels" in needs:
        for state, reason in ((ABSENT, "no tags"), (BAD_VALUE, "tags are not a list of strings")):
            usable = _drop(usable, pool.tag_state == state, reason, dropped)
    ranked = factors(pool, *ranking) if ranking is not None and "ranking" in needs else []
    for part in ranked:
        usable = _drop(usable, part.missing, part.lacking, dropped)
    parts = factors(pool, score, turns)
    value, missing, wrong = product(parts)
    if "score" in needs:
        for part in parts:
            usable = _drop(usable, part.missing, part.lacking, dropped)
    scored = score != NONE and not missing[usable].all()
    with np.errstate(invalid="ignore"):
        wrong |= ~missing & ~((value == 0) | ((value >= SMALLEST) & (value <= LARGEST)))
    faulty = usable & wrong & scored
    if faulty.any() and on_error != "skip":
        raise _wrong(pool, faulty, score, parts, value, f"finite numbers >= 0 (0, or from {SMALLEST:g} to {LARGEST:g})")
    usable = _drop(usable, faulty, f"{score} score negative or not a finite number", dropped)
    if ranking is not None and ranked:
        value_ranked, _, wrong = product(ranked)
        wrong = usable & (wrong | ~np.isfinite(value_ranked))
        if wrong.any() and on_error != "skip":
            raise _wrong(pool, wrong, ranking.source, ranked, value_ranked, "finite numbers")
        usable = _drop(usable, wrong, f"{ranking.source} score not a finite number", dropped)
        faulty |= wrong
    row = np.flatnonzero(usable).astype(np.int64)
    dropped = {reason: count for reason, count in dropped.items() if count}
    if not len(row):
        source, key = (score, "score.from") if ranking is None or not ranked else (ranking.source, ranking.key)
        raise UserError(f"no usable row among {len(pool)}: {_listed(dropped)}. {_hint(source, key, dropped)}")
    ptr, idx, labels, tag_count = _labels(pool, row, valid_tags)
    if not len(idx) and ("labels" in needs or (pool.tag_names and valid_tags is not None)):
        raise UserError(
            f"no row of the pool has a valid tag ({len(row)} usable rows, {len(pool.tag_names)} distinct tags such as"
            f" {', '.join(map(repr, pool.tag_names[:3])) or 'none'}): do pool.valid_tags and the pool belong together?"
        )
    value = np.where(missing, 0.0, value)[row] if scored else np.ones(len(row))
    if normalize:
        value = value / np.maximum(tag_count, 1)
    return Encoded(row, ptr, idx, value, labels, dropped, np.flatnonzero(faulty).astype(np.int64), tag_count, scored)


def _wrong(
    pool: Pool,
    faulty: Bool[np.ndarray, " R"],
    source: str,
    parts: list[Factor],
    value: Float64[np.ndarray, " R"],
    allowed: str,
) -> UserError:
    """The error that names the first faulty row."""
    row, more = int(faulty.argmax()), f" ({faulty.sum()} such rows)" if faulty.sum() > 1 else ""
    return UserError(
        f"{fault_of(pool, row, source, parts, value[row])}; scores must be {allowed}{more}."
        " pool.on_error=skip leaves such rows out",
        where=pool.where(row),
    )


def _drop(usable: np.ndarray, rows: np.ndarray, reason: str, dropped: dict[str, int]) -> np.ndarray:
    hit = usable & rows
    dropped[reason] = dropped.get(reason, 0) + int(hit.sum())
    return usable & ~rows


def _labels(pool: Pool, row: np.ndarray, valid_tags: ValidTags | None):
    """CSR of label ids without repeats, the sorted names, and the number of valid tags with repeats."""
    meant = labels_of(pool.tag_names, valid_tags)
    valid = np.fromiter((name is not None for name in meant), bool, count=len(meant))
    counts = np.diff(pool.tag_ptr)
    owner = np.repeat(np.arange(len(pool)), counts)
    position = np.full(len(pool), -1, np.int64)
    position[row] = np.arange(len(row))
    keep = (position[owner] >= 0) & valid[pool.tag_idx]
    owner, tag = position[owner[keep]], pool.tag_idx[keep]
    used = np.flatnonzero(np.bincount(tag, minlength=len(meant))).tolist()
    found = [meant[at] or "" for at in used]  # none is None: those are not kept
    names = sorted(set(found))
    number = {name: at for at, name in enumerate(names)}
    label_of = np.full(len(meant), -1, np.int64)
    label_of[used] = [number[name] for name in found]
    label = label_of[tag]
    tag_count = np.bincount(owner, minlength=len(row))
    first = _first(owner, label, len(row), max(len(names), 1))
    owner, label = owner[first], label[first].astype(np.int32)
    ptr = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(row)))]).astype(np.int64)
    return ptr, label, tuple(names), tag_count


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


def _hint(score: str, key: str, dropped: dict[str, int]) -> str:
    tags = dropped.get("no tags", 0) + dropped.get("tags are not a list of strings", 0)
    if tags and tags >= max(dropped.values()):
        return "Tags are read from annotation.instag.content; pool.fields.tags=PATH names another place"
    return hint(score, dropped, key)
