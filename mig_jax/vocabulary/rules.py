"""Steps 1 and 2: rare tags go, and spellings of one tag become one."""

import unicodedata

import numpy as np

from mig_jax.vocabulary.tags import DROPPED, Merging, Tags


def frequent(tags: Tags, min_count: int) -> Merging:
    """Drop the tags that fewer than ``min_count`` rows carry (alpha of the paper)."""
    return Merging(np.where(tags.count >= min_count, np.arange(len(tags)), DROPPED))


def spellings(tags: Tags, stem: bool, keep: str) -> Merging:
    """Merge the tags of one normal form.

    The label is the most frequent of them as it was written, not the normal form: it stays readable ("c++ programming",
    not "c program"), and every label is a tag of the pool, so that the bare list of labels serves any tool that
    compares tags exactly. One with stray white space is taken only where there is no other.
    """
    forms = [_form(name, keep) for name in tags.names]
    if stem:
        forms = _stemmed(forms)
    number: dict[str, int] = {}
    group = np.array([number.setdefault(form, len(number)) for form in forms], np.int64)
    untidy = np.array([name != " ".join(name.split()) for name in tags.names])
    return Merging(tags.first_of(group, untidy))


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
