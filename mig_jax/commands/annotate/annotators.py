"""Every annotator by the name that ``annotators=`` has, in the order in which they write into a row."""

from collections.abc import Sequence
from typing import Any

from mig_jax.commands.annotate.annotator import Annotator
from mig_jax.commands.annotate.car import CAR
from mig_jax.commands.annotate.deita import DEITA
from mig_jax.commands.annotate.ifd import IFD
from mig_jax.commands.annotate.instag import INSTAG
from mig_jax.commands.annotate.nearest import NEAREST
from mig_jax.commands.annotate.tokens import TOKENS
from mig_jax.core.errors import UserError

TAGGERS = {"nearest": NEAREST, "instag": INSTAG}
SCORERS = {"deita": DEITA, "ifd": IFD, "car": CAR, "tokens": TOKENS}
NAMES = ("tags", *SCORERS)


def find_annotator(name: str, tagger: Any = None) -> Annotator:
    """The annotator of a name; of "tags" the one that ``tags.name`` says.

    Raises:
      UserError: there is none; names those that there are.
    """
    if name != "tags":
        return SCORERS[name]
    if tagger not in TAGGERS:
        raise UserError(f"tags.name={tagger}: must be one of {', '.join(TAGGERS)}")
    return TAGGERS[tagger]


def chosen(asked: str | Sequence[str]) -> tuple[str, ...]:
    """The names that are asked for, in the order of ``NAMES``, so that another order asks for the same bytes.

    Raises:
      UserError: none, one twice, or one that is not known.
    """
    names = (asked,) if isinstance(asked, str) else tuple(asked)
    wrong = [name for name in names if name not in NAMES]
    if wrong or not names or len(set(names)) < len(names):
        from mig_jax.core.text import did_you_mean

        what = "one is named twice" if names else "none is named"
        if wrong:
            hint = did_you_mean(wrong[0], list(NAMES))
            if wrong[0] in TAGGERS:
                hint = f", but a way to find tags: annotators=[tags] with tags={wrong[0]}"
            what = f"{wrong[0]!r} is no annotator{hint}"
        raise UserError(f"annotators=[{','.join(names)}]: {what}; there are {', '.join(NAMES)}")
    return tuple(name for name in NAMES if name in names)
