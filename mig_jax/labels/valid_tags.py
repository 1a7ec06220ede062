"""Which tags are labels, and under what name: a plain set of tags, or labels with the tags that stand for them."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mig_jax.core.errors import UserError

PUBLISHED_TAGS = "configs/valid_tag_path.json of github.com/yichengchen24/MIG holds the published 4,531 tags"
_KEYS = ("labels", "aliases")


@dataclass(frozen=True)
class Vocabulary:
    """Labels, and other tags that mean one of them; what ``mig-jax vocabulary`` makes of a pool's tags.

    Args:
      labels: the tags that are labels as they are.
      aliases: tag -> label, for tags that are none themselves.

    Raises:
      UserError: an alias that maps to no label, or is one; the empty text as either.
    """

    labels: frozenset[str]
    aliases: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if "" in self.labels or "" in self.aliases:
            raise UserError("the empty text is no tag; take it out of labels and aliases")
        for tag, label in self.aliases.items():
            if tag in self.labels:
                raise UserError(f"aliases: {tag!r} is a label itself; a tag is one or the other")
            if label not in self.labels:
                raise UserError(f"aliases: {tag!r} maps to {label!r}, which is not one of the labels")

    def label_of(self, tag: str) -> str | None:
        """The label that a tag stands for; None: it does not count."""
        return tag if tag in self.labels else self.aliases.get(tag)


ValidTags = Collection[str] | Vocabulary


def labels_of(tags: Sequence[str], valid_tags: ValidTags | None) -> list[str | None]:
    """The label of each tag, None where it does not count. The empty tag never does.

    Args:
      valid_tags: only these tags are labels (exact match); a vocabulary also knows aliases; None: every tag is.
    """
    if isinstance(valid_tags, Vocabulary):
        return [valid_tags.label_of(tag) for tag in tags]
    return [tag if tag and (valid_tags is None or tag in valid_tags) else None for tag in tags]


def read_valid_tags(path: Path | str) -> frozenset[str] | Vocabulary:
    """A tag vocabulary: a JSON list of strings, a text file with a tag on each line, or a vocabulary.json.

    The last is ``{"labels": ["label", ...], "aliases": {"tag": "label", ...}}``; aliases may be left out.

    Raises:
      UserError: the file is missing, or holds something else.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"pool.valid_tags={path}: no such file; {PUBLISHED_TAGS}, and null uses every tag") from None
    except IsADirectoryError:
        inside = path / "vocabulary.json"
        hint = f"{inside} is one" if inside.is_file() else PUBLISHED_TAGS
        raise UserError(f"pool.valid_tags={path}: is a folder; it must be a file of tags ({hint})") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"pool.valid_tags={path}: cannot be read as UTF-8 text ({error})") from None
    if not text.lstrip().startswith(("[", "{")):
        tags: Any = [line for line in text.splitlines() if line]
    else:
        try:
            tags = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"pool.valid_tags={path}: not JSON ({error})") from None
    if isinstance(tags, dict) and "labels" in tags:
        try:
            return _vocabulary(tags)
        except UserError as error:
            raise UserError(f"pool.valid_tags={path}: {error}") from None
    if not isinstance(tags, list) or not tags or not all(isinstance(tag, str) for tag in tags):
        raise UserError(
            f"pool.valid_tags={path}: must hold a JSON list of strings, or one tag a line, or the object of a"
            f" vocabulary.json (labels, aliases); {PUBLISHED_TAGS}"
        )
    return frozenset(tags)


def _vocabulary(found: dict[str, Any]) -> Vocabulary:
    """The vocabulary of a JSON object; what is wrong names its key."""
    unknown = [key for key in found if key not in _KEYS]
    if unknown:
        raise UserError(f"{unknown[0]}: no such key; a vocabulary has labels and aliases")
    labels, aliases = found["labels"], found.get("aliases", {})
    if not isinstance(labels, list) or not labels:
        raise UserError("labels: must be a list of strings, of one at least")
    if not isinstance(aliases, dict):
        raise UserError('aliases: must be an object, {"tag": "label", ...}')
    for at, label in enumerate(labels):
        if not isinstance(label, str):
            raise UserError(f"labels[{at}]={json.dumps(label)}: must be a string")
    for tag, label in aliases.items():
        if not isinstance(label, str):
            raise UserError(f"aliases: {tag!r} maps to {json.dumps(label)}, which must be a string, one of the labels")
    return Vocabulary(frozenset(labels), aliases)
