"""``tags=instag``: a language model writes the tags of what a row asks (Lu et al. 2023, arXiv 2308.07074)."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mig_jax.batch import BatchJob
from mig_jax.commands.annotate.annotator import Annotation, AnnotationInput, Annotator, PoolRows
from mig_jax.commands.annotate.nearest import TAGS, asked_text, most_frequent
from mig_jax.commands.annotate.prompts import Template, prompt_tokens
from mig_jax.commands.annotate.tag_answers import read_answer
from mig_jax.config.struct import Positive, Struct
from mig_jax.core.errors import UserError
from mig_jax.core.progress import Progress
from mig_jax.models.config import ModelConfig

if TYPE_CHECKING:  # Flax
    from mig_jax.models.inference.language_model import FoundModel
    from mig_jax.models.tokenizers.tokens import Tokens

RAW = ("annotation", "instag", "raw")  # the answer, where no tags can be read from it
NO_TOKEN = -1
BATCH_ROWS = 16  # prompts that are answered together
BATCH_TOKENS = 8192


def parse_prompt(prompt: str) -> Template:
    """The setting ``tags.prompt``."""
    return Template.parse(prompt, ("query",), "tags.prompt")


class AnswerJob(BatchJob):
    """The tokens of the tagger's answer to each row, int32 ``[R, W]``, filled up with ``NO_TOKEN``."""

    width, dtype, blank = None, np.int32, NO_TOKEN

    def __init__(self, checkpoint: "FoundModel", prompt: str, max_new_tokens: int, inputs: AnnotationInput):
        key = [checkpoint.fingerprint, checkpoint.max_length, prompt, max_new_tokens]
        super().__init__("tags", key, checkpoint.load, checkpoint.config)
        self.checkpoint, self.template, self.max_new_tokens = checkpoint, parse_prompt(prompt), max_new_tokens
        self.rows: PoolRows = inputs.rows
        self.batch_tokens: int = BATCH_TOKENS if inputs.batch_tokens is None else inputs.batch_tokens

    def tokenize(self, progress: Progress) -> "Tokens":
        limit, count = self.checkpoint.max_length - self.max_new_tokens, len(self.rows)
        texts = ({"query": asked_text(exchanges)} for exchanges in self.rows.exchanges())
        tokens = prompt_tokens(self.checkpoint.tokenizer, self.template, texts, limit, total=count, progress=progress)
        if tokens.cut:
            self.notes = (f"tags: {tokens.cut:,} of {count:,} prompts were too long; what is asked was cut",)
        return tokens

    def plan_batches(self, tokens: "Tokens") -> Sequence[Any]:
        from mig_jax.models.inference.generate import plan_prompts  # Flax

        asked = np.array([r for r, refused in enumerate(self.rows.unasked) if refused is None], np.int64)
        return plan_prompts(tokens.length, self.checkpoint.max_length, BATCH_ROWS, self.batch_tokens, asked)

    def compute(self, model: Any, tokens: "Tokens", batches: Iterable[Any]) -> Iterator[tuple[Any, np.ndarray]]:
        from mig_jax.models.inference.generate import answer_batches  # Flax

        for batch, answers in answer_batches(model, tokens, batches, max_new_tokens=self.max_new_tokens):
            longest = max(len(answer.tokens) for answer in answers.values())
            token_nxW = np.full((len(batch.text), longest), NO_TOKEN, np.int32)
            for token_W, text in zip(token_nxW, batch.text.tolist(), strict=True):
                token_W[: len(answers[text].tokens)] = answers[text].tokens
            yield batch, token_nxW

    def flops(self, batch: Any) -> None:
        """Not known: an answer ends when it ends."""


class Instag(Annotator):
    """The tags that can be read from the tagger's answer; the answer itself where none can."""

    class Options(Struct, frozen=True):
        name: Literal["instag"]
        model: ModelConfig
        prompt: str
        max_new_tokens: Positive

    writes = (TAGS, RAW)

    def __init__(self, options: Options, inputs: AnnotationInput):
        from mig_jax.models.configured import model_spec_of  # Flax
        from mig_jax.models.inference.language_model import find_language_model  # Flax

        parse_prompt(options.prompt)  # before the model is looked for
        checkpoint = find_language_model(model_spec_of(options.model, "tags.model"), mesh=inputs.mesh)
        if checkpoint.max_length <= options.max_new_tokens:
            raise UserError(
                key="tags.max_new_tokens",
                value=options.max_new_tokens,
                allowed=f"less than the model's max_length={checkpoint.max_length}",
            )
        self.rows, self.tokenizer = inputs.rows, checkpoint.tokenizer
        self.jobs = (AnswerJob(checkpoint, options.prompt, options.max_new_tokens, inputs),)
        self.answers: Counter[str] = Counter()
        self.tags: Counter[str] = Counter()

    def annotate(self, results: tuple[np.ndarray, ...]) -> Iterator[Annotation]:
        (token_RxW,) = results
        ends = self.tokenizer.eos_ids
        for refused, token_W in zip(self.rows.unasked, token_RxW, strict=True):
            if refused is not None:
                yield Annotation({}, refused)
                continue
            ids = [token for token in token_W.tolist() if token != NO_TOKEN]
            text = self.tokenizer.decode(ids[:-1] if ids and ids[-1] in ends else ids)
            answer = read_answer(text)
            self.answers[answer.how] += 1
            self.tags.update(answer.tags)
            if answer.how == "malformed":  # the text is written as it is: another reader may find tags in it
                yield Annotation({RAW: text}, f"the tagger's answer is not what it should be: {answer.why}")
            else:
                yield Annotation({TAGS: list(answer.tags)})

    def facts(self) -> dict[str, Any]:
        readable = self.answers["json"] + self.answers["repaired"]
        return {
            "answers": {name: self.answers[name] for name in ("json", "repaired", "malformed")},
            "distinct_tags": len(self.tags),
            "tags_per_row": round(self.tags.total() / max(readable, 1), 3),
            "most_frequent": most_frequent(self.tags),
        }
