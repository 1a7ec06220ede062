"""Prompts of a template and a row's texts, cut where they are too long for the model: the texts, never the template."""

import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from mig_jax.core.errors import UserError
from mig_jax.core.progress import Progress, silent
from mig_jax.models.tokenizers.text_tokenizer import TextTokenizer
from mig_jax.models.tokenizers.tokens import Tokens

AT_ONCE = 1024  # prompts given to the tokenizer at once
_TRIES = 8  # a text that was cut and written out anew may have a few more tokens than before


@dataclass(frozen=True)
class Template:
    """Text with places for texts.

    Args:
      parts: (what stands before the place, the place's name or None) of each, in order.
    """

    parts: tuple[tuple[str, str | None], ...]

    @classmethod
    def of(cls, text: str, names: Sequence[str], key: str) -> "Template":
        """Read ``"Query: {query}\\n"``, as ``str.format`` would; ``{{`` is a brace.

        Raises:
          UserError: not each of ``names`` stands in it once, or something else does; ``key`` says where it was given.
        """
        try:
            parts = tuple((before, name) for before, name, *_ in string.Formatter().parse(text))
        except ValueError as error:
            raise UserError(f"{key}: {error}; a brace that is meant is written twice") from None
        found = sorted(name for _, name in parts if name is not None)
        if found != sorted(names):
            wanted = " and ".join(f"{{{name}}}" for name in names)
            raise UserError(
                f"{key}: must have {wanted} in it, once, and no other name; a brace that is meant is written twice"
            )
        return cls(parts)

    def fill(self, texts: Mapping[str, str]) -> str:
        """The prompt; what the texts hold is never read as a place."""
        return "".join(before + (texts[name] if name is not None else "") for before, name in self.parts)


def prompt_tokens(
    tokenizer: TextTokenizer,
    template: Template,
    texts: Iterable[Mapping[str, str]],
    limit: int,
    *,
    total: int | None = None,
    progress: Progress = silent,
) -> Tokens:
    """The ids of each prompt, with the tokenizer's special tokens, at most ``limit``; ``cut`` counts those shortened.

    Raises:
      UserError: the template alone has more tokens.
    """
    ids, lengths, cut = [np.empty(0, np.int32)], [0], 0
    stream: Iterator[Mapping[str, str]] = iter(texts)
    while chunk := list(islice(stream, AT_ONCE)):
        for of, found in zip(chunk, tokenizer.encode([template.fill(of) for of in chunk]), strict=True):
            if len(found) > limit:
                found, cut = _shortened(tokenizer, template, of, limit), cut + 1
            ids.append(np.array(found, np.int32))
            lengths.append(len(found))
        progress("tokenize", len(lengths) - 1, total, "prompts")
    return Tokens(np.concatenate(ids), np.cumsum(np.array(lengths, np.int64)), cut)


def _shortened(tokenizer: TextTokenizer, template: Template, texts: Mapping[str, str], limit: int) -> list[int]:
    """The prompt with each text cut at its end to an equal share of the room; what a short one leaves goes to the rest.

    Cutting a text's tokens and writing them out may give other tokens, so it is tried until the prompt fits.
    """
    names = [name for _, name in template.parts if name is not None]
    [bare] = tokenizer.encode([template.fill(dict.fromkeys(names, ""))])
    pieces = dict(zip(names, tokenizer.encode_plain([texts[name] for name in names]), strict=True))
    room = limit - len(bare)
    for _ in range(_TRIES):
        if room < 0:
            break
        left, shares = room, dict[str, int]()
        for place, name in enumerate(sorted(names, key=lambda name: len(pieces[name]))):
            shares[name] = min(len(pieces[name]), left // (len(names) - place))
            left -= shares[name]
        kept = {name: _decoded(tokenizer, pieces[name], shares[name], texts[name]) for name in names}
        [found] = tokenizer.encode([template.fill(kept)])
        if len(found) <= limit:
            return found
        room -= len(found) - limit
    raise UserError(f"{tokenizer.where}: the prompt's template alone has {len(bare)} tokens; max_length leaves {limit}")


def _decoded(tokenizer: TextTokenizer, ids: list[int], count: int, text: str) -> str:
    return text if count == len(ids) else tokenizer.decode(ids[:count])
