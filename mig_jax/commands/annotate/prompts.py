"""Prompts made of a template and a row's texts. Where one is too long the texts are cut, never the template."""

import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from mig_jax.core.errors import UserError
from mig_jax.core.progress import Progress, silent
from mig_jax.models.tokenizers.text_tokenizer import TextTokenizer
from mig_jax.models.tokenizers.tokens import Tokens

CHUNK = 1024  # prompts that are tokenised at once
_TRIES = 8  # a text that is cut, decoded and tokenised again may have a few more tokens than before


@dataclass(frozen=True)
class Template:
    """A text with named fields, as ``"Query: {query}\\n"``.

    Args:
      parts: (the text before a field, the field's name; None after the last one), in order.
    """

    parts: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, text: str, names: Sequence[str], key: str) -> "Template":
        """Read a template as ``str.format`` would; ``{{`` is a brace.

        Raises:
          UserError: it does not have each of ``names`` once and no other field. ``key``: the setting that holds it.
        """
        try:
            parts = tuple((before, name) for before, name, *_ in string.Formatter().parse(text))
        except ValueError as error:
            raise UserError(f"{error}; write a literal brace twice", key=key) from None
        fields = sorted(name for _, name in parts if name is not None)
        if fields != sorted(names):
            wanted = " and ".join(f"{{{name}}}" for name in names)
            raise UserError(f"must have {wanted} in it, once, and no other name; write a literal brace twice", key=key)
        return cls(parts)

    def fill(self, texts: Mapping[str, str]) -> str:
        """The prompt; braces in the texts are never read as fields."""
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
    while chunk := list(islice(stream, CHUNK)):
        for fields, prompt in zip(chunk, tokenizer.encode([template.fill(fields) for fields in chunk]), strict=True):
            if len(prompt) > limit:
                prompt, cut = _shortened(tokenizer, template, fields, limit), cut + 1
            ids.append(np.array(prompt, np.int32))
            lengths.append(len(prompt))
        progress("tokenize", len(lengths) - 1, total, "prompts")
    return Tokens(np.concatenate(ids), np.cumsum(np.array(lengths, np.int64)), cut)


def _shortened(tokenizer: TextTokenizer, template: Template, texts: Mapping[str, str], limit: int) -> list[int]:
    """The prompt with each text cut at its end to an equal part of the room; a short text leaves its rest to others.

    A text that is cut and decoded may be tokenised in another way, so it is tried until the prompt fits.
    """
    names = [name for _, name in template.parts if name is not None]
    [bare] = tokenizer.encode([template.fill(dict.fromkeys(names, ""))])
    pieces = dict(zip(names, tokenizer.encode_plain([texts[name] for name in names]), strict=True))
    room = limit - len(bare)
    for _ in range(_TRIES):
        if room < 0:
            break
        rest, counts = room, dict[str, int]()
        for done, name in enumerate(sorted(names, key=lambda name: len(pieces[name]))):
            counts[name] = min(len(pieces[name]), rest // (len(names) - done))
            rest -= counts[name]
        shorter = {name: _decoded(tokenizer, pieces[name], counts[name], texts[name]) for name in names}
        [prompt] = tokenizer.encode([template.fill(shorter)])
        if len(prompt) <= limit:
            return prompt
        room -= len(prompt) - limit
    raise UserError(
        f"the prompt's template alone has {len(bare)} tokens; max_length leaves {limit}", where=tokenizer.where
    )


def _decoded(tokenizer: TextTokenizer, ids: list[int], count: int, text: str) -> str:
    return text if count == len(ids) else tokenizer.decode(ids[:count])
