"""Pool -> Encoded: which rows can be chosen, their labels and their score.

A row needs its tags and its score. Rows without are counted by reason and left out; a row whose tags are all outside
the vocabulary stays (its gain is 0), as in yichengchen24/MIG @969eb53. A score that is negative or no finite number is
a mistake in the pool, not a missing annotation: it stops the run unless rows may be skipped.
"""

import numpy as np

from mig_jax.core.errors import UserError
from mig_jax.encode.encoded import Encoded
from mig_jax.encode.score import NONE, factors, hint, product, told
from mig_jax.labels.valid_tags import ValidTags, labels_of
from mig_jax.pool import ABSENT, BAD_VALUE, REASONS, Pool

SMALLEST, LARGEST = 1e-15, 1e15  # scores in between cannot leave float32's range, whatever phi and the number of picks


def encode(
    pool: Pool,
    *,
    valid_tags: ValidTags | None = None,
    score: str = "deita",
    turns: str = "mean",
    normalize: bool = False,
    on_error: str = "raise",
    bare: bool = False,
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
    parts = factors(pool, score, turns)
    value, missing, wrong = product(parts)
    scored = score != NONE and not (bare and bool(missing[usable].all()))
    if not scored:
        parts, value, wrong = [], np.ones(len(pool)), np.zeros(len(pool), bool)
    for part in parts:
        usable = _drop(usable, part.missing, part.lacking, dropped)
    with np.errstate(invalid="ignore"):
        wrong |= usable & ~((value == 0) | ((value >= SMALLEST) & (value <= LARGEST)))
    faulty = np.flatnonzero(usable & wrong)
    if len(faulty) and on_error != "skip":
        row = int(faulty[0])
        more = f" ({len(faulty)} such rows)" if len(faulty) > 1 else ""
        raise UserError(
            f"{pool.where(row)}: {told(pool, row, score, parts, value[row])}; scores must be finite numbers >= 0"
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


def _hint(score: str, dropped: dict[str, int]) -> str:
    tags = dropped.get("no tags", 0) + dropped.get("tags are not a list of strings", 0)
    if tags and tags >= max(dropped.values()):
        return "Tags are read from annotation.instag.content; pool.fields.tags=PATH names another place"
    return hint(score, dropped)
