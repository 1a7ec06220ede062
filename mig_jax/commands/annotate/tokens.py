"""Token counts: what a budget of ``limits.tokens`` counts, by the tokenizer of a model; no weights are read."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from mig_jax.commands.annotate.annotator import Annotator, Prepared, Said, Task
from mig_jax.config.struct import Struct
from mig_jax.models.config import ModelConfig

COUNT = ("annotation", "token_count")
AT_ONCE = 1024  # rows


class Options(Struct, frozen=True):
    model: ModelConfig


def prepare(options: Options, task: Task) -> Prepared:
    """Finds the tokenizer."""
    from mig_jax.models.checkpoints.checkpoint import find_checkpoint
    from mig_jax.models.configured import model_spec_of
    from mig_jax.models.tokenizers.text_tokenizer import load_text_tokenizer

    tokenizer = load_text_tokenizer(find_checkpoint(model_spec_of(options.model, "tokens.model")).tokenizer_source)
    rows, counted = task.rows, np.zeros(2, np.int64)

    def say(_: tuple[np.ndarray, ...]) -> Iterator[Said]:
        dialogs = rows.pool.each_dialog(rows.row)
        while chunk := list(islice(dialogs, AT_ONCE)):
            texts = [content for dialog in chunk for _, content in dialog]
            lengths = iter(map(len, tokenizer.encode_plain(texts)))
            for dialog in chunk:
                if not dialog:
                    yield Said({}, "no dialog")
                    continue
                count = sum(islice(lengths, len(dialog)))
                counted[:] += 1, count
                yield Said({COUNT: count})

    def facts() -> dict[str, Any]:
        return {"tokens": int(counted[1]), "tokens_per_row": round(float(counted[1] / max(counted[0], 1)), 1)}

    return Prepared((), tokenizer.sha256, say, facts)


TOKENS = Annotator(prepare, Options, writes=(COUNT,))
