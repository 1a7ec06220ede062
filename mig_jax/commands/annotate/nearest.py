"""``tags=nearest``: tags without a language model: the labels of a vocabulary that are nearest to what a row asks."""

import importlib.resources
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from jaxtyping import Float32

from mig_jax.batch import EmbeddingJob
from mig_jax.commands.annotate.annotator import Annotation, AnnotationInput, Annotator
from mig_jax.config.struct import Positive, Struct
from mig_jax.core.errors import UserError
from mig_jax.labels.valid_tags import Vocabulary, read_valid_tags
from mig_jax.models.config import EmbedderConfig
from mig_jax.pool.exchanges import Exchange
from mig_jax.pool.layouts import join_input

TAGS = ("annotation", "instag", "content")
BETWEEN = "\n\n"  # the user's turns
CHUNK = 4096  # rows whose labels are searched at once
ENOUGH = 32  # labels: of fewer, the mean is not what labels in general share
MINILM_UNCENTRED = 0.35  # MiniLM's threshold where the labels keep their mean; conf/embedder has those without it
SHOWN = 20  # of the labels that most rows have


class Nearest(Annotator):
    """The at most ``max_tags`` labels whose cosine with the user's turns reaches the threshold, nearest first."""

    class Options(Struct, frozen=True):
        name: Literal["nearest"]
        threshold: Literal["auto"] | Annotated[float, msgspec.Meta(ge=-1, le=1)]
        max_tags: Positive
        centre: bool

    writes = (TAGS,)

    def __init__(self, options: Options, inputs: AnnotationInput):
        from mig_jax.labels.configured import embed_labels  # Flax
        from mig_jax.models.configured import spec_of  # Flax
        from mig_jax.models.inference.embed import find_embedder  # Flax

        assert inputs.embedder is not None
        self.threshold, self.max_tags = threshold_of(options, inputs.embedder), options.max_tags
        self.labels = vocabulary(inputs.valid_tags)
        spec = spec_of(inputs.embedder)
        self.label_LxD, label_key = embed_labels(self.labels, spec, inputs.cache, inputs.progress, inputs.mesh)
        if options.centre and len(self.labels) >= ENOUGH:
            self.label_LxD = centred(self.label_LxD)
        self.key = [label_key, self.threshold, options.max_tags, options.centre]
        fingerprint, load = find_embedder(spec, batch_tokens=inputs.batch_tokens, mesh=inputs.mesh)
        rows = self.rows = inputs.rows

        def texts() -> Iterator[str]:
            return map(asked_text, rows.exchanges())

        def without() -> np.ndarray:
            return np.array([refused is not None for refused in rows.unasked], bool)

        self.jobs = (EmbeddingJob("tags", fingerprint, load, texts, without),)
        self.used: Counter[str] = Counter()
        self.best: list[np.ndarray] = []  # of each asked row, the cosine of its nearest label

    def annotate(self, results: tuple[np.ndarray, ...]) -> Iterator[Annotation]:
        from mig_jax.commands.annotate.nearest_labels import nearest_labels  # Flax

        (vector_RxD,) = results
        for start in range(0, len(self.rows), CHUNK):
            refused_r = self.rows.unasked[start : start + CHUNK]
            label_rxC, cosine_rxC = nearest_labels(
                vector_RxD[start : start + CHUNK], self.label_LxD, threshold=self.threshold, most=self.max_tags
            )
            self.best.append(cosine_rxC[[refused is None for refused in refused_r], 0])
            for refused, label_C in zip(refused_r, label_rxC.tolist(), strict=True):
                if refused is not None:
                    yield Annotation({}, refused)
                    continue
                tags = [self.labels[label] for label in label_C if label >= 0]
                self.used.update(tags)
                yield Annotation({TAGS: tags})

    def facts(self) -> dict[str, Any]:
        best = np.concatenate([*self.best, np.zeros(0, np.float32)])
        return {
            "vocabulary": len(self.labels),
            "threshold": self.threshold,
            "labels_used": len(self.used),
            "tags_per_row": round(self.used.total() / max(len(best), 1), 3),
            "rows_without_a_label": int((best < self.threshold).sum()),
            "most_frequent": most_frequent(self.used),
        }


def threshold_of(options: Nearest.Options, embedder: EmbedderConfig) -> float:
    """The least cosine of a tag; auto: the threshold that the embedder's configuration has.

    Raises:
      UserError: auto, and the embedder has none.
    """
    if options.threshold != "auto":
        return options.threshold
    uncentred = MINILM_UNCENTRED if embedder.name == "minilm" else None
    known = embedder.tag_threshold if options.centre else uncentred
    if known is None:
        usual = "0.31 is MiniLM's" if options.centre else f"{MINILM_UNCENTRED} is MiniLM's with tags.centre=false"
        raise UserError(
            f"not known for embedder {embedder.name}; give tags.threshold=..., {usual}",
            key="tags.threshold",
            value="auto",
        )
    return known


def centred(label_LxD: Float32[np.ndarray, "L D"]) -> Float32[np.ndarray, "L D"]:
    """The labels' embeddings less their mean, which all labels share and which makes some of them near to every text
    (the hubs of Radovanovic et al. 2010)."""
    return (label_LxD - label_LxD.mean(axis=0, dtype=np.float64)).astype(np.float32)


def vocabulary(valid_tags: str | None) -> tuple[str, ...]:
    """The labels to choose from, sorted."""
    bundled = Path(str(importlib.resources.files("mig_jax.assets") / "vocabulary.json"))
    valid = read_valid_tags(bundled if valid_tags is None else valid_tags)
    return tuple(sorted(label for label in (valid.labels if isinstance(valid, Vocabulary) else valid) if label))


def most_frequent(tags: Counter[str]) -> dict[str, int]:
    """The tags that most rows have, equals by name."""
    return dict(sorted(tags.items(), key=lambda one: (-one[1], one[0]))[:SHOWN])


def asked_text(exchanges: list[Exchange]) -> str:
    """The user's turns of a row: what its tags describe."""
    return BETWEEN.join(join_input(one.instruction, one.input) for one in exchanges)
