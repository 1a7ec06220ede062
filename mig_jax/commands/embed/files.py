"""The files of ``mig-jax embed``: embeddings.npy, labels.json of labels, manifest.json."""

from mig_jax.batch import BatchRun, EmbeddingJob
from mig_jax.commands.embed.texts import Texts
from mig_jax.core.json_files import write_json
from mig_jax.runs.manifest import EmbedManifest
from mig_jax.runs.run import Run

EMBEDDINGS, LABELS = "embeddings.npy", "labels.json"


def write_manifest(run: Run, texts: Texts, job: EmbeddingJob, batch_run: BatchRun) -> EmbedManifest:
    """Write labels.json where the texts are labels, and the manifest."""
    if texts.names is not None:
        write_json(run.files / LABELS, texts.names)
    seconds = run.timings.seconds.get("embed", 0.0)
    return run.write_manifest(
        EmbedManifest,
        inputs=texts.sources,
        mesh=job.mesh,
        target=texts.target,
        n=texts.count,
        dtype="float32",
        without_text=int(texts.without.sum()),
        without_tokens=texts_without_tokens(job),
        **job.facts,
        tokens=int(job.cost[~texts.without].sum()),
        cut=job.cut,
        batches=len(job.plan),
        computed=batch_run.computed,
        tokens_per_s=batch_run.computed / seconds if seconds and batch_run.computed else None,
    )


def texts_without_tokens(job: EmbeddingJob) -> int:
    """How many texts have no token: the empty ones, where the tokenizer adds no special token."""
    return int(((job.cost == 0) & ~job.without).sum())


def summary(manifest: EmbedManifest, out: str) -> str:
    """A run in one line."""
    speed, computed = manifest.tokens_per_s, manifest.computed
    rate = f" in {computed / speed:,.1f} s ({speed:,.0f} tokens/s)" if speed else ""
    attempt = "" if computed == manifest.tokens else f", {computed:,} of them in this attempt"
    texts = manifest.target.removesuffix("s" if manifest.n == 1 else "")
    return f"{manifest.n:,} {texts} -> {manifest.dim:,} numbers each; {manifest.tokens:,} tokens{attempt}{rate}; {out}"
