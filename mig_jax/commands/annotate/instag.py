"""``tags=instag``: a language model writes the tags of what a row asks (Lu et al. 2023, arXiv 2308.07074)."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np

from mig_jax.commands.annotate.annotator import Annotator, Prepared, Rows, Said, Task
from mig_jax.commands.annotate.kept import Kept
from mig_jax.commands.annotate.nearest import TAGS, asked_text, most_frequent
from mig_jax.commands.annotate.prompts import Template, prompt_tokens
from mig_jax.commands.annotate.tag_answers import read_answer
from mig_jax.config.struct import Positive, Struct
from mig_jax.core.errors import UserError
from mig_jax.core.progress import Progress
from mig_jax.models.config import ModelConfig

RAW = ("annotation", "instag", "raw")  # what the tagger wrote where no tags can be read from it
NO_TOKEN = -1
BATCH_ROWS = 16  # prompts that are answered together


class Options(Struct, frozen=True):
    name: Literal["instag"]
    model: ModelConfig
    prompt: str
    max_new_tokens: Positive


def prepare(options: Options, task: Task) -> Prepared:
    """Finds the tagger and reads the template."""
    from mig_jax.batch import Pass
    from mig_jax.models.configured import model_spec_of
    from mig_jax.models.inference.language_model import find_language_model

    template = Template.of(options.prompt, ("query",), "tags.prompt")
    found = find_language_model(model_spec_of(options.model, "tags.model"), mesh=task.mesh)
    if found.max_length <= options.max_new_tokens:
        raise UserError(
            f"tags.max_new_tokens={options.max_new_tokens}: must be less than the model's max_length={found.max_length}"
        )
    rows, how, tags = task.rows, Counter[str](), Counter[str]()
    batch_tokens = 8192 if task.batch_tokens is None else task.batch_tokens

    def plan(progress: Progress):
        return _job(rows, found, template, options.max_new_tokens, batch_tokens, progress)

    def say(results: tuple[np.ndarray, ...]) -> Iterator[Said]:
        (token_RxW,) = results
        ends = found.tokenizer.eos_ids
        for why, ids in zip(rows.unasked, token_RxW, strict=True):
            if why is not None:
                yield Said({}, why)
                continue
            written = [token for token in ids.tolist() if token != NO_TOKEN]
            text = found.tokenizer.decode(written[:-1] if written and written[-1] in ends else written)
            answer = read_answer(text)
            how[answer.how] += 1
            tags.update(answer.tags)
            if answer.how == "malformed":  # kept as it came: another reading, or a person, may find tags in it
                yield Said({RAW: text}, f"the tagger's answer is not what it should be: {answer.why}")
            else:
                yield Said({TAGS: list(answer.tags)})

    def facts() -> dict[str, Any]:
        read = how["json"] + how["repaired"]
        return {
            "answers": {name: how[name] for name in ("json", "repaired", "malformed")},
            "distinct_tags": len(tags),
            "tags_per_row": round(tags.total() / max(read, 1), 3),
            "most_frequent": most_frequent(tags),
        }

    made = Pass("tags", [found.fingerprint, found.max_length, options.prompt, options.max_new_tokens], plan)
    return Prepared((made,), None, say, facts)


def _job(rows: Rows, found: Any, template: Template, max_new_tokens: int, batch_tokens: int, progress: Progress):
    from mig_jax.batch import Job
    from mig_jax.models.inference.generate import answer_batches, plan_prompts

    limit = found.max_length - max_new_tokens
    texts = ({"query": asked_text(exchanges)} for exchanges in rows.exchanges())
    tokens = prompt_tokens(found.tokenizer, template, texts, limit, total=len(rows), progress=progress)
    asking = np.array([r for r, why in enumerate(rows.unasked) if why is None], np.int64)
    plan = plan_prompts(tokens.length, found.max_length, BATCH_ROWS, batch_tokens, asking)
    kept = Kept(found.load, found.config)

    def each(model: Any, batches: Iterable[Any]) -> Iterator[tuple[Any, np.ndarray]]:
        for batch, answers in answer_batches(model, tokens, batches, max_new_tokens=max_new_tokens):
            out = np.full((len(batch.text), max(len(one.tokens) for one in answers.values())), NO_TOKEN, np.int32)
            for row, text in zip(out, batch.text.tolist(), strict=True):
                row[: len(answers[text].tokens)] = answers[text].tokens
            yield batch, out

    cut = f"tags: {tokens.cut:,} of {len(rows):,} prompts were too long; what is asked was cut"
    notes = (cut,) if tokens.cut else ()
    return Job(
        plan,
        tokens.length,
        lambda batches: kept.run(each, batches),
        None,
        np.int32,
        NO_TOKEN,
        notes,
        release=kept.release,
    )


INSTAG = Annotator(prepare, Options, writes=(TAGS, RAW))
