"""The work of one process: its share of the planned batches, saved as they are done; then all of them put together."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from mig_jax.config import EmbedOptions
from mig_jax.embed.shards import Saver, Shards
from mig_jax.embed.texts import Texts
from mig_jax.errors import UserError
from mig_jax.models.embed import Embedder
from mig_jax.models.packing import Batch
from mig_jax.models.tokens import Tokens
from mig_jax.runtime.progress import Progress
from mig_jax.runtime.stopwatch import Stopwatch

EMBEDDINGS = "embeddings.npy"
_POLL = 0.5  # seconds between two looks at what other processes have done
_PATIENCE = 10.0  # seconds without a new batch until it is told who is missing


class Team(NamedTuple):
    """Which of how many processes this is; process p takes the batches p, p + processes, ..."""

    process: int
    processes: int

    @property
    def is_main(self) -> bool:
        """Whether this one puts the shards together."""
        return self.process == 0

    def share(self, batches: int) -> range:
        """The numbers of its batches."""
        return range(self.process, batches, self.processes)


@dataclass
class Made:
    """What a run was made of.

    Args:
      computed: tokens that this process ran in this life; earlier lives and other processes did the rest.
    """

    embedder: Embedder
    tokens: Tokens
    plan: tuple[Batch, ...]
    shards: Shards
    notes: list[str]
    computed: int

    def assemble(self, folder: Path, progress: Progress) -> None:
        """The matrix from its shards; batches of a shard that turns out damaged are computed again."""
        while not self.shards.assemble(folder / EMBEDDINGS, len(self.tokens.length), progress):
            missing = np.flatnonzero(~self.shards.saved())
            self.computed += _compute(self.embedder, self.tokens, self.plan, missing, self.shards, 1, 0.0, progress)

    def told(self, team: Team) -> str:
        """What a process that does not put the shards together says."""
        share = len(team.share(len(self.plan)))
        return (
            f"process {team.process} of {team.processes}: its {share:,} of {len(self.plan):,} batches are done; "
            "process 0 puts them together"
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
    shards = Shards(folder, plan, embedder.dim)
    notes = _notes(texts, tokens, embedder)
    for note in notes:
        tell(note)
    saved = shards.saved()
    if saved.any():
        tell(f"resuming: {saved.sum():,} of {len(plan):,} batches are there")
    failed = folder / f"failed-{team.process}"
    failed.unlink(missing_ok=True)
    mine = np.array(team.share(len(plan)), int)
    with watch.stage("embed"):
        left = mine[~saved[mine]]
        done = _tokens_in(tokens, plan, mine[saved[mine]])
        every = options.save_every
        try:
            computed = _compute(embedder, tokens, plan, left, shards, team.processes, every, progress, done)
        except (UserError, OSError):
            if jax.process_count() > 1:
                failed.touch()
            raise
    if team.is_main or jax.process_count() > 1:  # all at once into the end, else one waits in it for long
        with watch.stage("wait"):
            _wait(shards, team, progress, tell)
    return Made(embedder, tokens, plan, shards, notes, computed)


def _compute(
    embedder: Embedder,
    tokens: Tokens,
    plan: tuple[Batch, ...],
    numbers: np.ndarray,
    shards: Shards,
    step: int,
    every: float,
    progress: Progress,
    before: int = 0,
) -> int:
    """Run some batches and save them; the number of their tokens. ``before``: tokens done in earlier lives."""
    total = before + _tokens_in(tokens, plan, numbers)
    done, saver = before, Saver(shards, step, every)
    progress("embed", done, total)
    try:
        for number, (batch, vectors) in zip(
            numbers.tolist(), embedder.run(tokens, (plan[number] for number in numbers)), strict=True
        ):
            saver.add(number, vectors)
            done += int(tokens.length[batch.text].sum())
            progress("embed", done, total)
    finally:  # whatever stops it, Ctrl-C too
        saver.flush()
    return total - before


def _tokens_in(tokens: Tokens, plan: tuple[Batch, ...], numbers: np.ndarray) -> int:
    return sum(int(tokens.length[plan[number].text].sum()) for number in numbers)


def _wait(shards: Shards, team: Team, progress: Progress, tell: Callable[[str], None]) -> None:
    """Until every batch is in a shard; processes that nothing is heard of are named, once."""
    last, since, told = -1, time.monotonic(), jax.process_count() > 1  # those have all been started
    while not (saved := shards.saved()).all():
        if failed := sorted(shards.folder.glob("failed-*")):
            raise UserError(f"process {failed[0].name.partition('-')[2]} of {team.processes} has stopped; it says why")
        progress("other processes", int(saved.sum()), len(saved))
        if saved.sum() != last:
            last, since = saved.sum(), time.monotonic()
        elif not told and time.monotonic() - since >= _PATIENCE:
            tell(_missing(saved, team))
            told = True
        time.sleep(_POLL)


def _missing(saved: np.ndarray, team: Team) -> str:
    missing = np.flatnonzero(~saved)
    who = sorted({str(number) for number in (missing % team.processes).tolist()}, key=int)
    names = f"process{'es' * (len(who) > 1)} {', '.join(who)}"
    return (
        f"waiting for {names} of {team.processes}: {len(missing):,} of {len(saved):,} batches are missing; start "
        f"{names}, or stop this one and run the same command without mesh.processes and mesh.process, which takes over "
        "what is there"
    )


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
