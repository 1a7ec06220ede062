"""Which tags are labels: a plain set of tags, or a vocabulary of labels and aliases."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mig_jax.core.errors import UserError

PUBLISHED_TAGS = "configs/valid_tag_path.json of github.com/yichengchen24/MIG holds the published 4,531 tags"
_KEYS = ("labels", "aliases")


@dataclass(frozen=True)
class Vocabulary:
    """Labels, and aliases that are replaced by a label; ``mig-jax vocabulary`` makes it from the tags of a pool.

    Args:
      labels: tags that are labels.
      aliases: tag -> label, of tags that are not labels.

    Raises:
      UserError: an alias maps to no label, or is a label; a label or an alias is the empty text.
    """

    labels: frozenset[str]
    aliases: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if "" in self.labels or "" in self.aliases:
            raise UserError("the empty text is not a tag; remove it from labels and aliases")
        for tag, label in self.aliases.items():
            if tag in self.labels:
                raise UserError(f"{tag!r} is a label itself; a tag is one or the other", key="aliases")
            if label not in self.labels:
                raise UserError(f"{tag!r} maps to {label!r}, which is not one of the labels", key="aliases")

    def label_of(self, tag: str) -> str | None:
        """The label of a tag; None: the tag is ignored."""
        return tag if tag in self.labels else self.aliases.get(tag)


ValidTags = Collection[str] | Vocabulary


def labels_of(tags: Sequence[str], valid_tags: ValidTags | None) -> list[str | None]:
    """The label of each tag, None where the tag is ignored. The empty tag always is.

    Args:
      valid_tags: the tags that are labels (exact match), or a vocabulary; None: every tag is a label.
    """
    if isinstance(valid_tags, Vocabulary):
        return [valid_tags.label_of(tag) for tag in tags]
    return [tag if tag and (valid_tags is None or tag in valid_tags) else None for tag in tags]


def read_valid_tags(path: Path | str) -> frozenset[str] | Vocabulary:
    """A tag vocabulary: a JSON list of strings, a text file with a tag on each line, or a vocabulary.json.

    The last is ``{"labels": ["label", ...], "aliases": {"tag": "label", ...}}``; aliases may be left out.

    Raises:
      UserError: the file is missing, cannot be read, or holds something else.
    """
    path = Path(path)
    wrong = partial(UserError, key="pool.valid_tags", value=path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise wrong(f"no such file; {PUBLISHED_TAGS}, and null uses every tag") from None
    except IsADirectoryError:
        inside = path / "vocabulary.json"
        hint = f"{inside} is one" if inside.is_file() else PUBLISHED_TAGS
        raise wrong(f"is a folder; it must be a file of tags ({hint})") from None
    except (OSError, UnicodeDecodeError) as error:
        raise wrong(f"cannot be read as UTF-8 text ({error})") from None
    if not text.lstrip().startswith(("[", "{")):
        tags: Any = [line for line in text.splitlines() if line]
    else:
        try:
            tags = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise wrong(f"not JSON ({error})") from None
    if isinstance(tags, dict) and "labels" in tags:
        try:
            return _vocabulary(tags)
        except UserError as error:
            raise wrong(str(error)) from None
    if not isinstance(tags, list) or not tags or not all(isinstance(tag, str) for tag in tags):
        raise wrong(
            "must hold a JSON list of strings, or one tag a line, or the object of a"
            f" vocabulary.json (labels, aliases); {PUBLISHED_TAGS}"
        )
    return frozenset(tags)


def _vocabulary(content: dict[str, Any]) -> Vocabulary:
    """The vocabulary of a JSON object.

    Raises:
      UserError: with the key that is wrong.
    """
    unknown = [key for key in content if key not in _KEYS]
    if unknown:
        raise UserError("no such key; a vocabulary has labels and aliases", key=unknown[0])
    labels, aliases = content["labels"], content.get("aliases", {})
    if not isinstance(labels, list) or not labels:
        raise UserError(key="labels", allowed="a list of strings, of one at least")
    if not isinstance(aliases, dict):
        raise UserError(key="aliases", allowed='an object, {"tag": "label", ...}')
    for at, label in enumerate(labels):
        if not isinstance(label, str):
            raise UserError(key=f"labels[{at}]", value=label, allowed="a string")
    for tag, label in aliases.items():
        if not isinstance(label, str):
            raise UserError(
                f"{tag!r} maps to {json.dumps(label)}, which must be a string, one of the labels", key="aliases"
            )
    return Vocabulary(frozenset(labels), aliases)
