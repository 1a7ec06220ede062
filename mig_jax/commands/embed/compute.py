"""The one pass of ``mig-jax embed``: texts, the embedder, and what there is to be told of them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax

from mig_jax.batch import Job, Running, Team
from mig_jax.commands.embed.config import EmbedOptions
from mig_jax.commands.embed.texts import Texts
from mig_jax.core.progress import Progress
from mig_jax.core.timing import Stopwatch
from mig_jax.models.inference.embed import Embedder
from mig_jax.models.tokenizers.tokens import Tokens

EMBEDDINGS = "embeddings.npy"


@dataclass
class Made:
    """What a run was made of."""

    embedder: Embedder
    tokens: Tokens
    running: Running
    notes: list[str]

    @property
    def computed(self) -> int:
        """Tokens that this process ran in this life."""
        return self.running.computed

    def assemble(self, folder: Path, progress: Progress) -> None:
        """The matrix from its shards."""
        self.running.assemble(folder / EMBEDDINGS, progress)

    def told(self, team: Team) -> str:
        """What a process that does not put the shards together says."""
        batches = len(self.running.job.plan)
        return (
            f"process {team.process} of {team.processes}: its {len(team.share(batches)):,} of {batches:,} batches are "
            "done; process 0 puts them together"
        )


def embed(
    options: EmbedOptions,
    texts: Texts,
    load: Callable[[], Embedder],
    folder: Path,
    team: Team,
    watch: Stopwatch,
    progress: Progress,
    tell: Callable[[str], None],
) -> Made:
    """Compute the batches of this process that are in no shard; then see that the others' are there."""
    with watch.stage("load embedder"):
        embedder = load()
    with watch.stage("tokenize"):
        tokens = embedder.tokenize(texts.each(), query=True, total=texts.count, progress=progress)
        if len(tokens.length) != texts.count:
            texts.check()  # as a rule, the file was written to meanwhile
            raise AssertionError(f"{len(tokens.length)} texts came, {texts.count} were counted")
        plan = embedder.plan(tokens, without=texts.without)
    job = Job(plan, tokens.length, lambda batches: embedder.run(tokens, batches), embedder.dim)
    running = Running.begin("embed", job, folder)
    notes = _notes(texts, tokens, embedder)
    for note in notes:
        tell(note)
    with watch.stage("embed"):
        running.share(team, options.save_every, progress, tell)
    if team.is_main or jax.process_count() > 1:  # all at once into the end, else one waits in it for long
        with watch.stage("wait"):
            running.wait(team, progress, tell)
    return Made(embedder, tokens, running, notes)


def _notes(texts: Texts, tokens: Tokens, embedder: Embedder) -> list[str]:
    notes, empty, wordless = [], int(texts.without.sum()), without_tokens(texts, tokens)
    if tokens.cut:
        notes.append(
            f"{tokens.cut:,} of {texts.count:,} texts were longer than max_length={embedder.max_length} tokens and "
            "were cut"
        )
    if empty:
        notes.append(f"{empty:,} of {texts.count:,} rows have no dialog: their vectors are zero")
    if wordless:
        notes.append(f"{wordless:,} of {texts.count:,} texts have no token: their vectors are zero")
    return notes


def without_tokens(texts: Texts, tokens: Tokens) -> int:
    """How many texts the tokenizer makes nothing of: the empty ones, where it adds no special token."""
    return int(((tokens.length == 0) & ~texts.without).sum())
