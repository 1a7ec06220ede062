"""The four steps one after another, each on what the one before left; what each did, and the vocabulary at the end."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Int64

from mig_jax.commands.vocabulary.association import associated
from mig_jax.commands.vocabulary.config import VocabularyOptions
from mig_jax.commands.vocabulary.rules import frequent, spellings
from mig_jax.commands.vocabulary.semantic import near
from mig_jax.commands.vocabulary.tags import DROPPED, Merging, Tags
from mig_jax.core.errors import UserError
from mig_jax.core.progress import Progress, silent
from mig_jax.labels.valid_tags import Vocabulary

MOST_DROPPED = 100  # dropped tags that steps.json lists; a pool may have a hundred thousand
_PACKAGES = {"snowballstemmer": "snowballstemmer", "sklearn": "scikit-learn"}  # module -> as it is installed


@dataclass(frozen=True)
class Step:
    """What a step did.

    Args:
      name: frequency, rules, semantic or association.
      settings: those that it has; None: it was not asked for.
      before, after: how many tags there were, and are.
      dropped: the tags that were left out, most frequent first, at most ``MOST_DROPPED``: {"tag", "rows"}.
      merges: every label that others merged into, the largest first: {"label", "rows" that carry it afterwards, "tags":
        [{"tag", "rows"}]}, itself first; "span" and "between" say how wide a cluster is; "cosine" how near a tag of
        another stemmed spelling is to the label; "with", "both" and "confidence" by what rule a tag merged.
    """

    name: str
    settings: dict[str, Any] | None
    before: int
    after: int
    dropped: list[dict[str, Any]]
    merges: list[dict[str, Any]]

    @property
    def merged(self) -> int:
        """How many tags are no longer their own label."""
        return sum(len(merge["tags"]) - 1 for merge in self.merges)


@dataclass(frozen=True)
class Normalised:
    """A vocabulary.

    Args:
      labels: most frequent first, equals by name.
      rows: how many rows carry each.
      aliases: tag -> label, for the tags that merged into another, by name.
      steps: what led there.
      notes: for the user.
    """

    labels: tuple[str, ...]
    rows: tuple[int, ...]
    aliases: dict[str, str]
    steps: tuple[Step, ...]
    notes: tuple[str, ...]

    @property
    def vocabulary(self) -> Vocabulary:
        """For ``encode`` and ``select``."""
        return Vocabulary(frozenset(self.labels), self.aliases)


def normalise(
    tags: Tags,
    options: VocabularyOptions,
    embed: Callable[[Sequence[str]], np.ndarray],
    progress: Progress = silent,
    stage: Callable[[str], AbstractContextManager] = nullcontext,
    embedder: str = "the embedder",
) -> Normalised:
    """Tags -> labels.

    Args:
      tags: as ``tags_of`` finds them in a pool.
      options: which steps, and how.
      embed: unit embeddings of tags; float ``[K, D]``. Asked for sorted tags: for those with the stem of another, where
        stems are wanted, and for all that are left, where the semantic step is.
      stage: is entered with the name of each step while it works.
      embedder: what embeds, for notes.

    Raises:
      UserError: there is no tag, or none is left; a package is missing.
    """
    check_packages(options)
    if not len(tags):
        raise UserError(
            f"none of the pool's {tags.rows:,} annotated rows has a tag; tags are read from annotation.instag.content,"
            " and pool.fields.tags=PATH names another path"
        )
    o = options
    stemmed = {"stem_cosine": o.stem_cosine} if o.rules == "stem" else {}
    planned: list[tuple[str, dict[str, Any] | None, Callable[[Tags], Merging]]] = [
        ("frequency", {"min_count": o.min_count}, lambda t: frequent(t, o.min_count)),
        (
            "rules",
            None if o.rules is None else {"rules": o.rules, "keep": o.keep} | stemmed,
            lambda t: spellings(t, o.rules == "stem", o.keep, o.stem_cosine, embed),
        ),
        (
            "semantic",
            None if o.distance is None else {"distance": o.distance, "min_samples": o.min_samples},
            lambda t: near(t, embed(t.names), o.distance or 0.0, o.min_samples, progress, embedder),
        ),
        (
            "association",
            None if o.support is None else {"support": o.support, "confidence": o.confidence},
            lambda t: associated(t, o.support or 1, o.confidence),
        ),
    ]
    first, became = tags, np.arange(len(tags))
    steps, notes = [], []
    for name, settings, make in planned:
        before = tags
        with stage(name):
            merging = Merging(np.arange(len(tags))) if settings is None else make(tags)
            tags, number = tags.merged(merging.into)
        became = np.append(number, DROPPED)[became]
        steps.append(_step(name, settings, before, tags, merging, number))
        notes += merging.notes
        if not len(tags):
            most = int(before.rank.argmin())
            raise UserError(
                f"vocabulary.min_count={o.min_count}: no tag is on so many of the {tags.rows:,} rows; the most"
                f" frequent, {before.names[most]!r}, is on {int(before.count[most]):,}"
            )
    order = np.argsort(tags.rank)
    merged = [(name, tags.names[at]) for name, at in zip(first.names, became.tolist(), strict=True) if at != DROPPED]
    return Normalised(
        tuple(tags.names[at] for at in order.tolist()),
        tuple(tags.count[order].tolist()),
        {tag: label for tag, label in merged if tag != label},
        tuple(steps),
        tuple(notes),
    )


def embeds(options: VocabularyOptions) -> bool:
    """Whether tags may have to be embedded: for stems that are equal, or for the semantic step."""
    return (options.rules == "stem" and options.stem_cosine is not None) or options.distance is not None


def check_packages(options: VocabularyOptions) -> None:
    """Raise UserError where a step needs a package that is not installed."""
    needed = {"snowballstemmer": options.rules == "stem", "sklearn": options.distance is not None}
    missing = [_PACKAGES[name] for name, wanted in needed.items() if wanted and find_spec(name) is None]
    if missing:
        raise UserError(
            f"mig-jax vocabulary needs {' and '.join(missing)}: pip install 'mig_jax[vocabulary]'"
            " (or do without: vocabulary.rules=spelling does not stem, vocabulary.distance=null leaves DBSCAN out)"
        )


def _step(
    name: str,
    settings: dict[str, Any] | None,
    before: Tags,
    after: Tags,
    merging: Merging,
    number: Int64[np.ndarray, " K"],
) -> Step:
    into = merging.into
    by_rank = np.argsort(before.rank)
    dropped = by_rank[into[by_rank] == DROPPED][:MOST_DROPPED]
    members: dict[int, list[int]] = {}
    for at in by_rank.tolist():
        if into[at] not in (DROPPED, at):
            members.setdefault(int(into[at]), []).append(at)
    largest = sorted(members, key=lambda label: (-len(members[label]), before.rank[label]))
    merges = [
        {
            "label": before.names[label],
            "rows": int(after.count[number[label]]),
            **merging.of_label.get(label, {}),
            "tags": [_counted(before, at) | merging.of_tag.get(at, {}) for at in (label, *members[label])],
        }
        for label in largest
    ]
    return Step(name, settings, len(before), len(after), [_counted(before, at) for at in dropped.tolist()], merges)


def _counted(tags: Tags, at: int) -> dict[str, Any]:
    return {"tag": tags.names[at], "rows": int(tags.count[at])}
