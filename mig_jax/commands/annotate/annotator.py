"""What an annotator is given, and what it has to say of itself."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int32, Int64

from mig_jax.batch import Pass
from mig_jax.core.progress import Progress, silent
from mig_jax.pool import Pool
from mig_jax.pool.exchanges import Exchange

Place = tuple[str, ...]
NO_DIALOG = "no dialog"
NOTHING_ASKED = "no user turn"
NOTHING_SAID = "the user says nothing"
NOTHING_ANSWERED = "no answered turn"


@dataclass(frozen=True, eq=False)
class Rows:
    """The R rows of a pool that are annotated, as text, read where they lie.

    Args:
      pool: as loaded.
      row: their indices in it; int64 ``[R]``.
      whole: they are all there are.
    """

    pool: Pool
    row: Int64[np.ndarray, " R"]
    whole: bool = True

    def __len__(self) -> int:
        return len(self.row)

    def exchanges(self) -> Iterator[list[Exchange]]:
        """What was asked and answered in each row, in order; an empty list where nothing was asked."""
        return self.pool.each_exchanges(self.row)

    @cached_property
    def asked(self) -> Int32[np.ndarray, " R"]:
        """Exchanges of each row; int32 ``[R]``."""
        return self._counts[0]

    @cached_property
    def answered(self) -> Int32[np.ndarray, " R"]:
        """Exchanges of each row that have an answer (an empty one is one); int32 ``[R]``. Only the last can lack it."""
        return self._counts[1]

    @cached_property
    def unanswered(self) -> list[str | None]:
        """Of each row why there is no answer to judge; None where there is one."""
        return [
            NO_DIALOG if why == NO_DIALOG else NOTHING_ASKED if not asked else None if answered else NOTHING_ANSWERED
            for why, asked, answered in zip(self.unasked, self.asked.tolist(), self.answered.tolist(), strict=True)
        ]

    @cached_property
    def unasked(self) -> list[str | None]:
        """Of each row why there is nothing that its tags could be about; None where there is."""
        no_dialog = self.pool.status[self.row] != 0
        return [
            NO_DIALOG if none else NOTHING_ASKED if not asked else NOTHING_SAID if blank else None
            for none, asked, blank in zip(
                no_dialog.tolist(), self.asked.tolist(), self._counts[2].tolist(), strict=True
            )
        ]

    @cached_property
    def _counts(self) -> np.ndarray:
        """Of each row: exchanges, those with an answer, whether nothing but white space is asked; int32 ``[3, R]``."""
        counts = np.zeros((3, len(self)), np.int32)
        for r, exchanges in enumerate(self.exchanges()):
            counts[0, r] = len(exchanges)
            counts[1, r] = sum(exchange.output is not None for exchange in exchanges)
            counts[2, r] = not any(one.instruction.strip() or one.input.strip() for one in exchanges)
        return counts


@dataclass(frozen=True)
class Task:
    """Rows, and where the models run.

    Args:
      rows: what is annotated.
      mesh: the devices of the models; None: one.
      batch_tokens: tokens of a batch; None: what suits the backend.
      embedder: the configuration's ``embedder`` group, for annotators that embed.
      valid_tags: the configuration's ``pool.valid_tags``: the vocabulary.
      cache: where what can be used again is kept; None: nowhere.
      progress: told what is prepared.
    """

    rows: Rows
    mesh: Mesh | None = None
    batch_tokens: int | None = None
    embedder: Any = None
    valid_tags: str | None = None
    cache: Path | None = None
    progress: Progress = field(default=silent)


class Said(NamedTuple):
    """What an annotator says of a row.

    Args:
      values: JSON values by their place in the row; empty where there is nothing to say.
      refused: why the row, or one of its turns, has no value; None where all is said.
    """

    values: Mapping[Place, Any]
    refused: str | None = None


class Prepared(NamedTuple):
    """An annotator that knows its models and its texts.

    Args:
      passes: the models' work, in order.
      key: what decides its values beside the passes' keys and the rows; JSON-able.
      say: the results of each pass, ``[N, D]`` for its N texts -> what is said of each row, in order.
      facts: after ``say`` is through: numbers and counts for the manifest, plain.
    """

    passes: tuple[Pass, ...]
    key: Any
    say: Callable[[tuple[np.ndarray, ...]], Iterator[Said]]
    facts: Callable[[], Mapping[str, Any]] = dict


class Annotator(NamedTuple):
    """One kind of annotation.

    Args:
      prepare: finds the models (their checkpoints are checked, weights and texts not yet read); raises UserError.
      options: its settings: a struct whose fields are those of its part of conf/annotate.yaml.
      writes: the places in a row that it writes.
    """

    prepare: Callable[[Any, Task], Prepared]
    options: Any
    writes: tuple[Place, ...]
