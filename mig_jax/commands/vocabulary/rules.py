"""Steps 1 and 2: rare tags go, and spellings of one tag become one.

#InsTag's rule is stemming, and English stems collide: anime and animal are one, as are conversion and conversation, or
politeness and politics. So what only the stems make equal is merged where the embedder calls it near, too. MiniLM's
cosines of such pairs, of the 4,531 tags of MIG's vocabulary and of 31,429 real rows: conversation-conversion 0.16,
animal-anime 0.32, politeness-political 0.32, authentication-authenticity 0.47, function-functionality 0.53, set-setting
0.67, timing-time 0.69 | inspiration-inspirational 0.71, proportion-proportionality 0.73, pricing-price 0.80,
counting-count 0.85, politics-political 0.92. The default of ``vocabulary.stem_cosine``, 0.7, is the border between, and
MiniLM's. It errs, too: gaming-game (0.697) stays apart, intersection-intersectionality (0.75) and influence-influencer
(0.78) are one.
"""

import unicodedata
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Int64

from mig_jax.commands.vocabulary.tags import DROPPED, Merging, Tags


def frequent(tags: Tags, min_count: int) -> Merging:
    """Drop the tags that fewer than ``min_count`` rows carry (alpha of the paper)."""
    return Merging(np.where(tags.count >= min_count, np.arange(len(tags)), DROPPED))


def spellings(
    tags: Tags,
    stem: bool,
    keep: str,
    stem_cosine: float | None = None,
    embed: Callable[[Sequence[str]], np.ndarray] | None = None,
) -> Merging:
    """Merge the tags of one normal form; with ``stem``, those of equal stems, too.

    The label is the most frequent of them as it was written, not the normal form: it stays readable ("c++ programming",
    not "c program"), and every label is a tag of the pool, so that the bare list of labels serves any tool that
    compares tags exactly. One with stray white space is taken only where there is no other.

    Args:
      stem_cosine: what the cosine of two tags must at least be where only their stems are equal; None: anything.
      embed: unit embeddings of tags, in the order of their names; asked at most once, for those that this decides.
    """
    forms = [_form(name, keep) for name in tags.names]
    untidy = np.array([name != " ".join(name.split()) for name in tags.names])
    into = tags.first_of(_numbered(forms), untidy)
    if not stem:
        return Merging(into)
    stems = _numbered(_stemmed(forms))
    if stem_cosine is None or embed is None:
        return Merging(tags.first_of(stems, untidy))
    return _guarded(tags, into, stems, untidy, stem_cosine, embed)


def _guarded(
    tags: Tags,
    into: Int64[np.ndarray, " K"],
    stems: Int64[np.ndarray, " K"],
    untidy: Bool[np.ndarray, " K"],
    stem_cosine: float,
    embed: Callable[[Sequence[str]], np.ndarray],
) -> Merging:
    """Merge spellings of equal stems into the most frequent of them if near to it; then the others among themselves."""
    own = np.arange(len(tags))
    heads = np.flatnonzero(into == own)
    heads = heads[np.lexsort((tags.rank[heads], untidy[heads], stems[heads]))]
    groups = np.split(heads, np.flatnonzero(np.diff(stems[heads])) + 1)
    groups = [members for members in groups if len(members) > 1]
    if not groups:
        return Merging(into)
    asked = np.sort(np.concatenate(groups))
    vectors = embed([tags.names[at] for at in asked.tolist()])
    of_tag = {}
    for left in groups:
        while len(left) > 1:
            first, left = left[0], left[1:]
            cosine = vectors[np.searchsorted(asked, left)] @ vectors[np.searchsorted(asked, first)]
            close = cosine >= stem_cosine
            own[left[close]] = first
            for at, value in zip(left[close].tolist(), cosine[close].tolist(), strict=True):
                of_tag[at] = {"cosine": round(value, 4)}
            left = left[~close]
    return Merging(own[into], of_tag=of_tag)


def _numbered(forms: Sequence[str]) -> Int64[np.ndarray, " K"]:
    """A number for each form, equal ones the same."""
    number: dict[str, int] = {}
    return np.array([number.setdefault(form, len(number)) for form in forms], np.int64)


def _form(tag: str, keep: str) -> str:
    """Lower case, special characters as spaces, single spaces; a tag of nothing else keeps them.

    Letters, digits and the marks on letters of any script are no special characters. ``keep``: nor are these.
    """
    lower = unicodedata.normalize("NFKC", tag).lower()
    plain = "".join(one if one in keep or unicodedata.category(one)[0] in "LNM" else " " for one in lower)
    return " ".join(plain.split()) or tag


def _stemmed(forms: list[str]) -> list[str]:
    """Each word by its stem, after Porter's second stemmer for English."""
    from snowballstemmer.english_stemmer import EnglishStemmer  # by name: the package would take a C version if there

    words = sorted({word for form in forms for word in form.split(" ")})
    stems = dict(zip(words, EnglishStemmer().stemWords(words), strict=True))
    return [" ".join(stems[word] for word in form.split(" ")) for form in forms]
