"""``tags=nearest``: tags without a language model: the labels of a vocabulary that are nearest to what a row asks."""

import importlib.resources
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from jaxtyping import Float32

from mig_jax.commands.annotate.annotator import Annotator, Prepared, Rows, Said, Task
from mig_jax.commands.annotate.kept import Kept
from mig_jax.config.struct import Positive, Struct
from mig_jax.core.errors import UserError
from mig_jax.core.progress import Progress
from mig_jax.labels.valid_tags import Vocabulary, read_valid_tags
from mig_jax.models.config import EmbedderConfig
from mig_jax.pool.exchanges import Exchange
from mig_jax.pool.layouts import joined

TAGS = ("annotation", "instag", "content")
BETWEEN = "\n\n"  # the user's turns
AT_ONCE = 4096  # rows
ENOUGH = 32  # labels: of fewer, the mean is not what labels in general share
MINILM_UNCENTRED = 0.35  # MiniLM's threshold where the labels keep their mean; conf/embedder has those without it
SHOWN = 20  # of the labels that most rows have


class Options(Struct, frozen=True):
    name: Literal["nearest"]
    threshold: Literal["auto"] | Annotated[float, msgspec.Meta(ge=-1, le=1)]
    max_tags: Positive
    centre: bool


def prepare(options: Options, task: Task) -> Prepared:
    """Finds the embedder and embeds the vocabulary (``pool.valid_tags``, or the one that comes with mig_jax)."""
    from mig_jax.batch import Pass
    from mig_jax.labels.configured import embed_labels
    from mig_jax.models.configured import spec_of
    from mig_jax.models.inference.embed import find_embedder

    threshold = threshold_of(options, task.embedder)
    labels = vocabulary(task.valid_tags)
    spec = spec_of(task.embedder)
    label_LxD, label_key = embed_labels(labels, spec, task.cache, task.progress, task.mesh)
    if options.centre and len(labels) >= ENOUGH:
        label_LxD = centred(label_LxD)
    fingerprint, load = find_embedder(spec, batch_tokens=task.batch_tokens, mesh=task.mesh)

    def plan(progress: Progress):
        return _job(task.rows, load, progress)

    used: Counter[str] = Counter()
    nearest: list[np.ndarray] = []

    def say(results: tuple[np.ndarray, ...]) -> Iterator[Said]:
        (vector_RxD,) = results
        from mig_jax.commands.annotate.nearest_labels import nearest_labels

        unasked = task.rows.unasked
        for start in range(0, len(task.rows), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            label_rxC, cosine_rxC = nearest_labels(
                vector_RxD[part], label_LxD, threshold=threshold, most=options.max_tags
            )
            nearest.append(cosine_rxC[[why is None for why in unasked[part]], 0])
            for why, found in zip(unasked[part], label_rxC.tolist(), strict=True):
                if why is not None:
                    yield Said({}, why)
                    continue
                tags = [labels[label] for label in found if label >= 0]
                used.update(tags)
                yield Said({TAGS: tags})

    def facts() -> dict[str, Any]:
        best = np.concatenate([*nearest, np.zeros(0, np.float32)])
        asked = max(len(best), 1)
        return {
            "vocabulary": len(labels),
            "threshold": threshold,
            "labels_used": len(used),
            "tags_per_row": round(used.total() / asked, 3),
            "rows_without_a_label": int((best < threshold).sum()),
            "most_frequent": most_frequent(used),
        }

    made = Pass("tags", fingerprint, plan)
    return Prepared((made,), [label_key, threshold, options.max_tags, options.centre], say, facts)


def threshold_of(options: Options, embedder: EmbedderConfig) -> float:
    """The least cosine of a tag; auto: what is known of the embedder.

    Raises:
      UserError: auto, of an embedder of which nothing is.
    """
    if options.threshold != "auto":
        return options.threshold
    uncentred = MINILM_UNCENTRED if embedder.name == "minilm" else None
    known = embedder.tag_threshold if options.centre else uncentred
    if known is None:
        usual = "0.31 is MiniLM's" if options.centre else f"{MINILM_UNCENTRED} is MiniLM's with tags.centre=false"
        raise UserError(
            f"tags.threshold=auto: not known for embedder {embedder.name}; give tags.threshold=..., {usual}"
        )
    return known


def centred(label_LxD: Float32[np.ndarray, "L D"]) -> Float32[np.ndarray, "L D"]:
    """The labels' embeddings without what all of them share, their mean: it draws some labels near to every text (the
    hubs of Radovanovic et al. 2010), whatever that says."""
    return (label_LxD - label_LxD.mean(axis=0, dtype=np.float64)).astype(np.float32)


def vocabulary(valid_tags: str | None) -> tuple[str, ...]:
    """The labels to choose from, sorted."""
    bundled = Path(str(importlib.resources.files("mig_jax.assets") / "vocabulary.json"))
    found = read_valid_tags(bundled if valid_tags is None else valid_tags)
    return tuple(sorted(label for label in (found.labels if isinstance(found, Vocabulary) else found) if label))


def most_frequent(tags: Counter[str]) -> dict[str, int]:
    """Those that most rows have, equals by name."""
    return dict(sorted(tags.items(), key=lambda one: (-one[1], one[0]))[:SHOWN])


def asked_text(exchanges: list[Exchange]) -> str:
    """All that the user says in a row: what its tags are about."""
    return BETWEEN.join(joined(one.instruction, one.input) for one in exchanges)


def _job(rows: Rows, load: Any, progress: Progress):
    from mig_jax.batch import Job

    kept = Kept(load)
    embedder = kept()
    texts = (asked_text(exchanges) for exchanges in rows.exchanges())
    tokens = embedder.tokenize(texts, query=True, total=len(rows), progress=progress)
    notes = ()
    if tokens.cut:
        cut = f"tags: {tokens.cut:,} of {len(rows):,} rows ask more than max_length={embedder.max_length} tokens; "
        notes = (f"{cut}what is beyond them did not count",)
    return Job(
        embedder.plan(tokens, without=np.array([why is not None for why in rows.unasked], bool)),
        tokens.length,
        lambda batches: kept.run(lambda model, some: model.run(tokens, some), batches),
        embedder.dim,
        notes=notes,
        flops=lambda batch: kept.flops(batch.rows, batch.width),
        flops_dtype=embedder.spec.dtype,
        release=kept.release,
    )


NEAREST = Annotator(prepare, Options, writes=(TAGS,))
