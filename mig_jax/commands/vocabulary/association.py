"""Step 4: tags that hardly ever come without another one merge into it.

#InsTag mines association rules by FP-Growth. Its rules join two tags, so what they need of the frequent itemsets are
the pairs: the entries off the diagonal of X^T X, with X the sparse matrix of rows and tags. They are counted here by
sparse products, a block of tags at a time: exact, in C, seconds for a million rows. A test compares the rules with
mlxtend's FP-Growth, which is not used itself: it makes a dense matrix of all rows and tags to count the single tags,
10 GB of 1,000,000 rows and 10,000 tags (1.0 GB measured at 200,000 and 5,000, where this takes 20 MB), and a tree of
Python objects after that.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from scipy import sparse

from mig_jax.commands.vocabulary.tags import Merging, Tags

_BLOCK = 1024  # tags whose pairs are counted at once


class Rules(NamedTuple):
    """A rule ``source -> target``: of the rows with source the share ``confidence`` has target too; E rules.

    ``source``, ``target``: numbers of tags, int64 ``[E]``; ``both``: rows with both, int64 ``[E]``; ``confidence``:
    float64 ``[E]``.
    """

    source: Int64[np.ndarray, " E"]
    target: Int64[np.ndarray, " E"]
    both: Int64[np.ndarray, " E"]
    confidence: Float64[np.ndarray, " E"]


def rules_of(tags: Tags, support: int, confidence: float) -> Rules:
    """All rules between two tags that at least ``support`` rows have both of, sorted by source and target."""
    frequent = np.flatnonzero(tags.count >= support)
    column = np.full(len(tags), -1, np.int64)
    column[frequent] = np.arange(len(frequent))
    at = column[tags.tag]
    ones = np.ones(int((at >= 0).sum()), np.int32)
    carried = sparse.csr_matrix((ones, (tags.owner[at >= 0], at[at >= 0])), shape=(tags.rows, len(frequent)))
    turned = carried.T.tocsr()
    parts = [(np.zeros(0, np.int64),) * 3]
    for start in range(0, len(frequent), _BLOCK):
        pairs = (turned[start : start + _BLOCK] @ carried).tocoo()
        source, target = pairs.row.astype(np.int64) + start, pairs.col.astype(np.int64)
        # Division rounds to the nearest float, as the setting was rounded: 99 of 100 are 0.99.
        found = (source != target) & (pairs.data >= support)
        found &= pairs.data / tags.count[frequent[source]] >= confidence
        parts.append((frequent[source[found]], frequent[target[found]], pairs.data[found].astype(np.int64)))
    source, target, both = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.lexsort((target, source))
    source, target, both = source[order], target[order], both[order]
    return Rules(source, target, both, both / tags.count[source])


def associated(tags: Tags, support: int, confidence: float) -> Merging:
    """Merge each tag with a rule into the tag that it nearly always comes with.

    A tag merges only into one that comes before it when the most frequent come first, equals by name: so there is no
    cycle, and of two that imply each other the more frequent stays. Of several targets the one with most
    confidence is taken, of equals the more frequent. Chains are followed to their end.
    """
    rules = rules_of(tags, support, confidence)
    up = tags.rank[rules.target] < tags.rank[rules.source]
    order = np.flatnonzero(up)
    order = order[np.lexsort((tags.rank[rules.target[order]], -rules.both[order], rules.source[order]))]
    source = rules.source[order]
    best = order[np.diff(source, prepend=-1) != 0]
    into = np.arange(len(tags))
    into[rules.source[best]] = rules.target[best]
    of_tag = {
        int(rules.source[at]): {
            "with": tags.names[rules.target[at]],
            "both": int(rules.both[at]),
            "confidence": round(float(rules.confidence[at]), 4),
        }
        for at in best.tolist()
    }
    while not np.array_equal(into, into[into]):
        into = into[into]
    return Merging(into, of_tag=of_tag)
