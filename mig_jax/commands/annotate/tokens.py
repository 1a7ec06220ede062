"""Token counts by the tokenizer of a model, for the budget ``limits.tokens``; no weights are read."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from mig_jax.commands.annotate.annotator import NO_DIALOG, Annotation, AnnotationInput, Annotator
from mig_jax.config.struct import Struct
from mig_jax.models.config import ModelConfig

COUNT = ("annotation", "token_count")
CHUNK = 1024  # rows that are tokenised at once


class TokenCounts(Annotator):
    """The tokens of all turns of a row, without special ones."""

    class Options(Struct, frozen=True):
        model: ModelConfig

    writes = (COUNT,)

    def __init__(self, options: Options, inputs: AnnotationInput):
        from mig_jax.models.checkpoints.checkpoint import find_checkpoint  # the libraries that read checkpoints
        from mig_jax.models.configured import model_spec_of
        from mig_jax.models.tokenizers.text_tokenizer import load_text_tokenizer

        self.tokenizer = load_text_tokenizer(
            find_checkpoint(model_spec_of(options.model, "tokens.model")).tokenizer_source
        )
        self.rows, self.key = inputs.rows, self.tokenizer.sha256
        self.counted = self.total = 0

    def annotate(self, results: tuple[np.ndarray, ...]) -> Iterator[Annotation]:
        dialogs = self.rows.pool.each_dialog(self.rows.row)
        while chunk := list(islice(dialogs, CHUNK)):
            texts = [content for dialog in chunk for _, content in dialog]
            lengths = iter(map(len, self.tokenizer.encode_plain(texts)))
            for dialog in chunk:
                if not dialog:
                    yield Annotation({}, NO_DIALOG)
                    continue
                count = sum(islice(lengths, len(dialog)))
                self.counted += 1
                self.total += count
                yield Annotation({COUNT: count})

    def facts(self) -> dict[str, Any]:
        return {"tokens": self.total, "tokens_per_row": round(self.total / max(self.counted, 1), 1)}
