"""What a model computes of many texts, cut into batches."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
from jaxtyping import Int64, Shaped

from mig_jax.core.progress import Progress, silent

if TYPE_CHECKING:  # Flax
    from mig_jax.models.inference.loaded import LoadedModel


class Batch(Protocol):
    """Some of the texts, as ``models.inference.packing.Batch`` or ``models.inference.generate.Prompts`` places them."""

    @property
    def text(self) -> Int64[np.ndarray, " n"]:
        """The indices of its texts."""
        ...


class Model(Protocol):
    """An ``Embedder``, a ``LanguageModel`` or a ``LoadedScorer``."""

    @property
    def loaded(self) -> "LoadedModel": ...

    @property
    def config(self) -> Any: ...


M = TypeVar("M", bound=Model)


class BatchJob(ABC, Generic[M]):
    """N texts, and a model that makes D numbers of each.

    ``prepare`` tokenises and plans; the first result loads the weights; ``release`` frees texts and weights, so that
    the next job has the memory. A released job still knows its plan, and can compute again: it tokenises and loads
    anew. A subclass defines ``tokenize``, ``plan_batches`` and ``compute``.

    Args:
      name: names its progress, its time and its folder of shards.
      key: what decides its results beside the texts; JSON-able.
      load: reads the weights.
      config: the network's, for ``flops``; None: the loaded model's.
      flops_dtype: the type of the model's products.

    Attributes:
      width: D; None: each batch has its own, and shorter results are filled up with ``blank``.
      dtype: of the results. blank: the result of a text in no batch.
      plan: after ``prepare``: every batch. The texts and the settings alone decide it, so that every process and every
        attempt plans the same. A text that the model need not read is in no batch.
      cost: after ``prepare``: the tokens of each text; int64 ``[N]``.
      notes: after ``prepare``: for the user ("12 were cut").
    """

    width: int | None = 1
    dtype: type[np.generic] = np.float32
    blank: float = np.nan

    def __init__(self, name: str, key: Any, load: Callable[[], M], config: Any = None, flops_dtype: str = "float32"):
        self.name, self.key, self.flops_dtype = name, key, flops_dtype
        self.plan: Sequence[Any] = ()  # of Batch
        self.cost = np.zeros(0, np.int64)
        self.notes: tuple[str, ...] = ()
        self._load, self._config = load, config
        self._model: M | None = None
        self._shapes: Any = None
        self._tokens: Any = None

    @abstractmethod
    def tokenize(self, progress: Progress) -> Any:
        """The token ids of all texts: an object whose ``length`` is int64 ``[N]``. May set ``notes``."""

    @abstractmethod
    def plan_batches(self, tokens: Any) -> Sequence[Any]:
        """Every batch."""

    @abstractmethod
    def compute(self, model: M, tokens: Any, batches: Iterable[Any]) -> Iterator[tuple[Any, Shaped[np.ndarray, "n D"]]]:
        """Each of some batches with its n texts' results, in the order given."""

    def prepare(self, progress: Progress = silent) -> None:
        """Tokenise and plan."""
        self._tokens = self.tokenize(progress)
        self.cost = self._tokens.length
        self.plan = self.plan_batches(self._tokens)

    def results(self, batches: Iterable[Any]) -> Iterator[tuple[Any, Shaped[np.ndarray, "n D"]]]:
        """``compute`` with the model; it is not loaded where there is no batch."""
        rest = iter(batches)
        first = next(rest, None)
        if first is None:
            return
        if self._tokens is None:
            self.prepare()
        yield from self.compute(self.model(), self._tokens, chain([first], rest))

    def model(self) -> M:
        """The model, loaded at the first call."""
        if self._model is None:
            import jax

            self._model = self._load()
            loaded = self._model.loaded
            shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), loaded.state)
            self._config = self._config or self._model.config
            self._shapes = type(loaded)(loaded.graphdef, shapes)
        return self._model

    def release(self) -> None:
        """Free the texts and the weights."""
        self._model = self._tokens = None

    def flops(self, batch: Any) -> float | None:
        """Floating-point operations of a batch, padding included; None: not known. Needs the model loaded once."""
        from mig_jax.models.inference.flops import forward_flops  # Flax

        return forward_flops(self._shapes, self._config, batch.rows, batch.width)

    def tokens_of(self, numbers: Iterable[int]) -> int:
        """The tokens of some batches."""
        return sum(int(self.cost[self.plan[number].text].sum()) for number in numbers)

    @property
    def tokens(self) -> int:
        """The tokens of all batches."""
        return self.tokens_of(range(len(self.plan)))

    def plan_digest(self) -> str:
        """A hash of the plan, hex: the texts and the shape of every batch, and the form of the results."""
        digest = hashlib.sha256(repr((len(self.cost), self.width, np.dtype(self.dtype).str)).encode())
        for batch in self.plan:
            digest.update(repr((batch.rows, batch.width)).encode())
            digest.update(np.ascontiguousarray(batch.text, np.int64).data)
        return digest.hexdigest()
