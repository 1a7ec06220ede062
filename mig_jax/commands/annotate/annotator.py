"""What an annotator is: rows of a pool in, JSON values for each row out.

``annotate`` makes an ``Annotator`` of its settings and an ``AnnotationInput``, computes its batch jobs, then writes its
``Annotation`` of each row.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int32, Int64

from mig_jax.batch import BatchJob
from mig_jax.config.struct import Struct
from mig_jax.core.progress import Progress, silent
from mig_jax.models.config import EmbedderConfig
from mig_jax.models.inference.packing import usual_batch_tokens
from mig_jax.pool import Pool
from mig_jax.pool.exchanges import Exchange

JsonPath = tuple[str, ...]
"""The keys that lead to a value inside a row."""
NO_DIALOG = "no dialog"
NO_USER_TURN = "no user turn"
EMPTY_USER_TURNS = "the user says nothing"
NO_ANSWER = "no answered turn"


class Annotation(NamedTuple):
    """What an annotator adds to a row.

    Args:
      values: JSON values by their path in the row.
      refused: why the row, or one of its turns, has no value; None where every value is there.
    """

    values: Mapping[JsonPath, Any]
    refused: str | None = None


class Annotator(ABC):
    """One kind of annotation. An instance is used once, for the rows of one run.

    Class attributes:
      Options: its settings, a struct whose fields are those of its part of conf/annotate.yaml.
      writes: the paths in a row that it may write.

    Attributes:
      jobs: the models' work, in order.
      key: what decides its values beside the jobs' keys and the rows; JSON-able.
    """

    Options: ClassVar[type[Struct]]
    writes: ClassVar[tuple[JsonPath, ...]]
    jobs: tuple[BatchJob, ...] = ()
    key: Any = None

    @abstractmethod
    def __init__(self, options: Any, inputs: "AnnotationInput"):
        """Find the models and check their checkpoints; weights and texts are read later, by the jobs.

        Raises:
          UserError: a checkpoint is missing, or does not fit the options.
        """

    @abstractmethod
    def annotate(self, results: tuple[np.ndarray, ...]) -> Iterator[Annotation]:
        """The annotation of each row, in order.

        Args:
          results: of each job, ``[N, D]`` for its N texts.
        """

    def facts(self) -> Mapping[str, Any]:
        """Counts and means for the manifest, plain; complete when ``annotate`` has come to its end."""
        return {}


@dataclass(frozen=True, eq=False)
class PoolRows:
    """The R rows of a pool that are annotated; their text is read from the pool's files each time.

    Args:
      pool: as loaded.
      row: their lines in the pool; int64 ``[R]``.
      whole: they are all rows of the pool that can be annotated.
    """

    pool: Pool
    row: Int64[np.ndarray, " R"]
    whole: bool = True

    def __len__(self) -> int:
        return len(self.row)

    def exchanges(self) -> Iterator[list[Exchange]]:
        """The instructions and answers of each row, in order; an empty list where there is no instruction."""
        return self.pool.each_exchanges(self.row)

    def answered_exchanges(self) -> Iterator[Exchange]:
        """The exchanges of all rows that have an answer, in order."""
        return (exchange for row in self.exchanges() for exchange in row if exchange.output is not None)

    def answered_slices(self) -> Iterator[tuple[str | None, slice]]:
        """Of each row: why it has no answered exchange, else None; and where its own are in ``answered_exchanges``."""
        end = 0
        for refused, answered in zip(self.unanswered, self.answered.tolist(), strict=True):
            end += answered
            yield refused, slice(end - answered, end)

    @cached_property
    def asked(self) -> Int32[np.ndarray, " R"]:
        """Exchanges of each row; int32 ``[R]``."""
        return self._counts[0]

    @cached_property
    def answered(self) -> Int32[np.ndarray, " R"]:
        """Exchanges of each row that have an answer, maybe an empty one; int32 ``[R]``. Only the last can lack it."""
        return self._counts[1]

    @cached_property
    def unanswered(self) -> list[str | None]:
        """Of each row why it has no answered exchange; None where it has one."""
        return [
            NO_DIALOG if why == NO_DIALOG else NO_USER_TURN if not asked else None if answered else NO_ANSWER
            for why, asked, answered in zip(self.unasked, self.asked.tolist(), self.answered.tolist(), strict=True)
        ]

    @cached_property
    def unasked(self) -> list[str | None]:
        """Of each row why it has no instruction that tags could describe; None where it has one."""
        no_dialog = self.pool.status[self.row] != 0
        return [
            NO_DIALOG if none else NO_USER_TURN if not asked else EMPTY_USER_TURNS if blank else None
            for none, asked, blank in zip(
                no_dialog.tolist(), self.asked.tolist(), self._counts[2].tolist(), strict=True
            )
        ]

    @cached_property
    def _counts(self) -> np.ndarray:
        """Of each row: exchanges, those with an answer, whether the user's turns are blank; int32 ``[3, R]``."""
        counts = np.zeros((3, len(self)), np.int32)
        for r, exchanges in enumerate(self.exchanges()):
            counts[0, r] = len(exchanges)
            counts[1, r] = sum(exchange.output is not None for exchange in exchanges)
            counts[2, r] = not any(exchange.instruction.strip() or exchange.input.strip() for exchange in exchanges)
        return counts


@dataclass(frozen=True)
class AnnotationInput:
    """The rows, and where and how the models run.

    Args:
      mesh: the devices of the models; None: one.
      batch_tokens: tokens of a batch; None: what suits the backend.
      embedder: for annotators that embed.
      valid_tags: the configuration's ``pool.valid_tags``: the vocabulary.
      cache: a folder for label embeddings; None: nothing is cached.
      progress: of label embeddings.
    """

    rows: PoolRows
    mesh: Mesh | None = None
    batch_tokens: int | None = None
    embedder: EmbedderConfig | None = None
    valid_tags: str | None = None
    cache: Path | None = None
    progress: Progress = field(default=silent)

    @property
    def usual_batch_tokens(self) -> int:
        """``batch_tokens``, or the backend's usual number."""
        return self.batch_tokens or usual_batch_tokens()
