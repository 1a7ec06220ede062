"""Every annotator by the name that ``annotators=`` has, in the order in which they write into a row."""

from collections.abc import Sequence
from typing import Any

from mig_jax.commands.annotate.annotator import Annotator
from mig_jax.commands.annotate.car import Car
from mig_jax.commands.annotate.deita import Deita
from mig_jax.commands.annotate.ifd import Ifd
from mig_jax.commands.annotate.instag import Instag
from mig_jax.commands.annotate.nearest import Nearest
from mig_jax.commands.annotate.tokens import TokenCounts
from mig_jax.core.errors import UserError
from mig_jax.core.text import did_you_mean

TAGGERS: dict[str, type[Annotator]] = {"nearest": Nearest, "instag": Instag}
SCORERS: dict[str, type[Annotator]] = {"deita": Deita, "ifd": Ifd, "car": Car, "tokens": TokenCounts}
NAMES = ("tags", *SCORERS)


def find_annotator(name: str, tagger: Any = None) -> type[Annotator]:
    """The annotator of a name; of "tags" the one that ``tags.name`` names.

    Raises:
      UserError: there is none of this name.
    """
    if name != "tags":
        return SCORERS[name]
    if tagger not in TAGGERS:
        raise UserError(key="tags.name", value=tagger, allowed=tuple(TAGGERS))
    return TAGGERS[tagger]


def annotator_names(asked: str | Sequence[str]) -> tuple[str, ...]:
    """The names in the order of ``NAMES``, so that another order in ``annotators=`` gives the same bytes.

    Raises:
      UserError: there is no name, one appears twice, or one is unknown.
    """
    names = (asked,) if isinstance(asked, str) else tuple(asked)
    wrong = [name for name in names if name not in NAMES]
    if wrong or not names or len(set(names)) < len(names):
        what = "one is named twice" if names else "none is named"
        if wrong:
            hint = did_you_mean(wrong[0], list(NAMES))
            if wrong[0] in TAGGERS:
                hint = f", but a way to find tags: annotators=[tags] with tags={wrong[0]}"
            what = f"{wrong[0]!r} is no annotator{hint}"
        raise UserError(f"{what}; there are {', '.join(NAMES)}", key="annotators", value=f"[{','.join(names)}]")
    return tuple(name for name in NAMES if name in names)
