"""The entries of the lazy heap: rows of one tag set under one, compiled by numba.

The rows of an entry wait in a queue (score descending, row ascending). An entry is one cache line of sixteen int32,
``rec[e]``, the first eight bytes of which are also ``bound[e, 0]`` and the second ``bound[e, 1]``:

    0-1 bound   2-3 score of its first row   4 next entry of its bucket   5 first row   6 place in the queue
    7 step of its last evaluation   8-15 up to eight tags, ascending, padded with L (y is 0 there), or WIDE at 15
"""

import numpy as np
from numba import njit  # pyright: ignore[reportMissingImports]

INLINE = 8
WIDE = -1  # the tags did not fit: they are read from the pool
CLOSE = 2.0**-40  # scores nearer than this may earn the same gain in float64: such rows do not share a queue


@njit
def group(ptr, idx, score, num_labels, exp_exact):
    """(tags, queue, rec): rows with a tag and a score, those of one tag set under one entry."""
    count = len(score)
    tags = np.empty(len(idx), np.int32)
    size = 1
    while size < 2 * count + 2:
        size *= 2
    table = np.full(size, -1, np.int32)
    set_of = np.full(count, -1, np.int32)
    first = np.empty(count, np.int32)
    sets = rows = 0
    for row in range(count):
        lo, hi = ptr[row], ptr[row + 1]
        if hi == lo or not score[row] > 0:
            continue
        rows += 1
        digest = np.uint64(1469598103934665603)
        for i in range(lo, hi):
            tag, j = idx[i], i
            while j > lo and tags[j - 1] > tag:
                tags[j] = tags[j - 1]
                j -= 1
            tags[j] = tag
        for i in range(lo, hi):
            digest = (digest ^ np.uint64(tags[i])) * np.uint64(1099511628211)
            digest ^= digest >> np.uint64(29)
        slot = np.int64(digest & np.uint64(size - 1))
        while set_of[row] < 0:
            if table[slot] < 0:
                table[slot], first[sets] = sets, row
                sets += 1
            other = first[table[slot]]
            same = ptr[other + 1] - ptr[other] == hi - lo
            for i in range(hi - lo):
                if not same:
                    break
                same = tags[ptr[other] + i] == tags[lo + i]
            if same:
                set_of[row] = table[slot]
            slot = (slot + 1) & (size - 1)
    start = np.zeros(sets + 1, np.int64)
    for row in range(count):
        if set_of[row] >= 0:
            start[set_of[row] + 1] += 1
    for s in range(sets):
        start[s + 1] += start[s]
    place = start[:-1].copy()
    order = np.empty(rows, np.int32)
    for row in range(count):
        if set_of[row] >= 0:
            order[place[set_of[row]]] = row
            place[set_of[row]] += 1
    entries = 0
    for s in range(sets):
        lo, hi = start[s], start[s + 1]
        if hi - lo > 32:
            mine = order[lo:hi].copy()
            order[lo:hi] = mine[np.argsort(-score[mine], kind="mergesort")]
        else:
            for i in range(lo + 1, hi):
                row, j = order[i], i
                while j > lo and score[order[j - 1]] < score[row]:
                    order[j] = order[j - 1]
                    j -= 1
                order[j] = row
        entries += 1
        for i in range(lo + 1, hi):
            entries += parted(score[order[i - 1]], score[order[i]], exp_exact)
    queue = np.empty(rows + entries, np.int32)
    rec = np.empty((entries, 16), np.int32)
    e = at = 0
    for s in range(sets):
        lo, hi = start[s], start[s + 1]
        for i in range(lo, hi):
            if i == lo or parted(score[order[i - 1]], score[order[i]], exp_exact):
                if at > 0:
                    queue[at] = -1
                    at += 1
                open_entry(rec, e, at, order[i], ptr, tags, num_labels)
                e += 1
            queue[at] = order[i]
            at += 1
    queue[at:] = -1
    return tags, queue, rec


@njit
def parted(high, low, exp_exact):
    """Whether two rows of a tag set, one behind the other, must not share a queue: their gains could tie."""
    return high != low and (exp_exact or low >= high * (1.0 - CLOSE))


@njit
def open_entry(rec, e, at, row, ptr, tags, num_labels):
    rec[e, 5], rec[e, 6], rec[e, 7] = row, at, -1
    lo, hi = ptr[row], ptr[row + 1]
    for i in range(INLINE):
        rec[e, 8 + i] = tags[lo + i] if lo + i < hi else num_labels
    if hi - lo > INLINE:
        rec[e, 15] = WIDE
