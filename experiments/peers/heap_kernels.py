"""What the lazy heap runs, compiled by numba: the queue of bounds, both gains, the loop over picks.

Nothing is allocated inside the loop over picks, and arrays go from function to function one by one: numba counts
references of those in a tuple, which made the loop 4 times slower. Additions go over tags in ascending order, within a
tag over P's row, so that every gain has the bits that the same loops over all rows would give it.
"""

import math

import numpy as np
from numba import njit  # pyright: ignore[reportMissingImports]

from experiments.peers.heap_group import WIDE

SHIFT = 47  # bits of a float64 that a bucket leaves out: 32 buckets for each power of two
BUCKETS = 1 << (63 - SHIFT)
INCREMENTAL, RECOMPUTE, EXACT = 0, 1, 2  # what a gain is, and how y is kept (see heap.py)
POWER, EXP, LOG = 0, 1, 2


@njit
def slope_at(kind, a, eps, x):
    if kind == POWER:
        return a * (x + eps) ** (a - 1.0)
    if kind == EXP:
        return a * math.exp(-a * x)
    return 1.0 / (a + x)


@njit
def power_at(kind, a, eps, x):
    """What the rise of phi at x is a multiple of."""
    if kind == POWER:
        return (x + eps) ** a
    if kind == EXP:
        return math.exp(-a * x)
    return 1.0


@njit
def label_y(ptr, idx, val, slope, label):
    total = 0.0
    for j in range(ptr[label], ptr[label + 1]):
        total += val[j] * slope[idx[j]]
    return total


@njit
def bucket_of(key):
    """Ascending in key; keys >= 0."""
    return np.float64(key).view(np.int64) >> SHIFT


@njit
def sift(keys, ent, rows, size, at, key, e, row):
    """Put (key, e, row) in the hole ``at`` of the 4-ary heap, and let it sink."""
    while True:
        c = 4 * at + 1
        if c + 3 < size:
            k0, k1, k2, k3 = keys[c], keys[c + 1], keys[c + 2], keys[c + 3]
            i = c + np.int64((k1 > k0) | ((k1 == k0) & (rows[c + 1] < rows[c])))
            j = c + 2 + np.int64((k3 > k2) | ((k3 == k2) & (rows[c + 3] < rows[c + 2])))
            ki, kj = max(k0, k1), max(k2, k3)
            best = j if (kj > ki) | ((kj == ki) & (rows[j] < rows[i])) else i
            top = max(ki, kj)
        elif c < size:
            best, top = c, keys[c]
            for j in range(c + 1, size):
                if keys[j] > top or (keys[j] == top and rows[j] < rows[best]):
                    best, top = j, keys[j]
        else:
            break
        if key > top or (key == top and row < rows[best]):
            break
        keys[at], ent[at], rows[at] = top, ent[best], rows[best]
        at = best
    keys[at], ent[at], rows[at] = key, e, row


@njit
def reach(ptr, idx, val, tag_ptr, tags, row, part, touched):
    """Sum of P's rows of a row's tags into ``part``, the labels into ``touched``; how many. The caller clears part."""
    count = 0
    for i in range(tag_ptr[row], tag_ptr[row + 1]):
        for j in range(ptr[tags[i]], ptr[tags[i] + 1]):
            k = idx[j]
            if part[k] == 0.0:
                touched[count] = k
                count += 1
            part[k] += val[j]
    return count


@njit
def first_order(rec, bound, tag_ptr, tags, y, e):
    """s sum_t y[t]."""
    total = 0.0
    if rec[e, 15] == WIDE:
        row = rec[e, 5]
        for i in range(tag_ptr[row], tag_ptr[row + 1]):
            total += y[tags[i]]
    else:
        for i in range(8, 16):
            total += y[rec[e, i]]
    return total * bound[e, 1]


@njit
def exact(kind, a, eps, x, power, part, touched, count, score):
    """sum_k phi(x_k + s part_k) - phi(x_k), in the forms of mig_jax/objective/phi.py; clears part."""
    total = 0.0
    for m in range(count):
        k = touched[m]
        d = score * part[k]
        part[k] = 0.0
        if kind == POWER:
            total += power[k] * math.expm1(a * math.log1p(d / (x[k] + eps)))
        elif kind == EXP:
            total += power[k] * -math.expm1(-a * d)
        else:
            total += math.log1p(d / (a + x[k]))
    return total


@njit
def first_bounds(p, phi, pool, heads, mode):
    """Every entry into its bucket, under its gain at x = 0 or a bound of it; the highest bucket.

    The exact gain of power is bounded by s^b sum_t sum_k P[t, k]^b: phi grows by less than d^b, and is subadditive.
    """
    ptr, idx, val, _, _, _ = p
    kind, a, eps = phi
    tag_ptr, tags, score, _, rec, bound = pool
    count = len(ptr) - 1
    weight, x, part, touched = np.zeros(count + 1), np.zeros(count), np.zeros(count), np.empty(count, np.int32)
    flat, power = np.full(count, slope_at(kind, a, eps, 0.0)), np.full(count, power_at(kind, a, eps, 0.0))
    bounded = mode == EXACT and kind == POWER
    for label in range(count):
        if bounded:
            for j in range(ptr[label], ptr[label + 1]):
                weight[label] += val[j] ** a
        else:
            weight[label] = label_y(ptr, idx, val, flat, label)
    top = 0
    for e in range(len(rec)):
        row = rec[e, 5]
        bound[e, 1] = score[row]
        if mode == EXACT and not bounded:
            reached = reach(ptr, idx, val, tag_ptr, tags, row, part, touched)
            key = exact(kind, a, eps, x, power, part, touched, reached, score[row])
        else:
            key = first_order(rec, bound, tag_ptr, tags, weight, e)
        if bounded:
            key = key / score[row] * score[row] ** a * (1.0 + 1e-12)
        else:
            rec[e, 7] = 0
        b = bucket_of(key)
        bound[e, 0] = key
        rec[e, 4] = heads[b]
        heads[b] = e
        top = max(top, b)
    return top


@njit
def pick(p, phi, pool, heads, top, picks, mode, margins):
    """(rows, gains, margins, evaluations): Minoux's loop, with one place where a gain is evaluated.

    Buckets of bounds, the highest nonempty one as a heap. An entry is evaluated when its bucket comes to the front
    (``walk`` goes over the bucket's list), and when it is the first of the heap and stale; whatever falls below the
    bucket goes to its own list. The first of the heap, when fresh, is the first of all.
    """
    ptr, idx, val, col_ptr, col_idx, col_val = p
    kind, a, eps = phi
    tag_ptr, tags, score, queue, rec, bound = pool
    count = len(ptr) - 1
    x, part, touched = np.zeros(count), np.zeros(count), np.empty(count, np.int32)
    slope, power = np.full(count, slope_at(kind, a, eps, 0.0)), np.full(count, power_at(kind, a, eps, 0.0))
    y = np.zeros(count + 1)
    for label in range(count):
        y[label] = label_y(ptr, idx, val, slope, label)
    changed = np.zeros(count, np.int32)  # the last step at which a label that this one reaches changed
    known = np.zeros(count, np.int32)  # the step that y belongs to
    keys, ent, front = np.empty(len(rec)), np.empty(len(rec), np.int32), np.empty(len(rec), np.int32)
    rows, gains, margin = np.empty(picks, np.int64), np.empty(picks), np.empty(picks if margins else 0)
    size, walk, evals, step, pending, b = 0, -1, 0, 0, False, top + 1
    while True:
        rising = walk >= 0
        moving = False
        if rising:
            e = walk
            walk = rec[e, 4]
        elif size == 0:
            b -= 1
            while b >= 0 and heads[b] < 0:
                b -= 1
            if b >= 0:
                walk = heads[b]
                heads[b] = -1
                continue
            if not pending:
                break
            e = -1
        else:
            e = ent[0]
        fresh = True
        if e >= 0:
            fresh = rec[e, 7] == step
            if mode == EXACT and not fresh:
                fresh, row = True, rec[e, 5]
                for i in range(tag_ptr[row], tag_ptr[row + 1]):
                    fresh &= changed[tags[i]] <= rec[e, 7]
        if fresh and not rising:  # the first of all
            absorbing = -1
            if pending:
                margin[step] = (gains[step] - (keys[0] if size > 0 else 0.0)) / gains[step]
                absorbing = rows[step]
            elif not keys[0] > 0.0 or step == picks:
                break
            else:
                rows[step], gains[step] = front[0], keys[0]
                moving = True
                if not margins:
                    absorbing = front[0]
            if absorbing >= 0:
                step += 1
                reached = reach(ptr, idx, val, tag_ptr, tags, absorbing, part, touched)
                for m in range(reached):
                    k = touched[m]
                    x[k] += score[absorbing] * part[k]
                    part[k] = 0.0
                    if mode == EXACT:
                        power[k] = power_at(kind, a, eps, x[k])
                    else:
                        new = slope_at(kind, a, eps, x[k])
                        change, slope[k] = new - slope[k], new
                    if mode == INCREMENTAL:
                        for j in range(col_ptr[k], col_ptr[k + 1]):
                            y[col_idx[j]] += col_val[j] * change
                    else:
                        for j in range(col_ptr[k], col_ptr[k + 1]):
                            changed[col_idx[j]] = step
            pending = margins and not pending
            if step == picks:
                break
            if not moving:
                continue
            rec[e, 6] += 1
            row = queue[rec[e, 6]]
            if row < 0:
                size -= 1
                if size > 0:
                    sift(keys, ent, front, size, 0, keys[size], ent[size], front[size])
                continue
            rec[e, 5], bound[e, 1] = row, score[row]
            fresh = False
        key = bound[e, 0]
        if not fresh:
            if mode == EXACT:
                reached = reach(ptr, idx, val, tag_ptr, tags, rec[e, 5], part, touched)
                key = exact(kind, a, eps, x, power, part, touched, reached, bound[e, 1])
            else:
                if mode == RECOMPUTE:
                    row = rec[e, 5]
                    for i in range(tag_ptr[row], tag_ptr[row + 1]):
                        label = tags[i]
                        if known[label] < changed[label]:
                            known[label] = changed[label]
                            y[label] = label_y(ptr, idx, val, slope, label)
                key = first_order(rec, bound, tag_ptr, tags, y, e)
            rec[e, 7] = step
            evals += 1
        down = bucket_of(key)
        if down < b:
            bound[e, 0] = key
            rec[e, 4] = heads[down]
            heads[down] = e
            if not rising:
                size -= 1
                if size > 0:
                    sift(keys, ent, front, size, 0, keys[size], ent[size], front[size])
        elif rising:
            keys[size], ent[size], front[size] = key, e, rec[e, 5]
            size += 1
        else:
            sift(keys, ent, front, size, 0, key, e, rec[e, 5])
        if rising and walk < 0:
            for at in range((size - 2) // 4, -1, -1):
                sift(keys, ent, front, size, at, keys[at], ent[at], front[at])
    return rows[:step], gains[:step], margin[:step], evals
