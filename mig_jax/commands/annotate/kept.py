"""A model that a pass needs for a while."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:  # Flax
    from mig_jax.models.inference.loaded import LoadedModel


class WithWeights(Protocol):
    """An ``Embedder``, a ``LanguageModel``, a ``LoadedScorer``."""

    @property
    def loaded(self) -> "LoadedModel": ...

    @property
    def config(self) -> Any: ...


Model = TypeVar("Model", bound=WithWeights)


class Kept(Generic[Model]):
    """A model: loaded when it is first asked for, let go when its pass is done, so that the next has the memory.

    Args:
      load: reads the weights.
      config: of the network; None: the model tells.
    """

    def __init__(self, load: Callable[[], Model], config: Any = None):
        self._load, self._config = load, config
        self._model: Model | None = None
        self._shapes: Any = None

    def __call__(self) -> Model:
        """The model."""
        if self._model is None:
            import jax

            self._model = self._load()
            loaded = self._model.loaded
            shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), loaded.state)
            self._config = self._config or self._model.config
            self._shapes = type(loaded)(loaded.graphdef, shapes)
        return self._model

    def run(self, each: Callable[[Model, Iterable[Any]], Iterator[Any]], batches: Iterable[Any]) -> Iterator[Any]:
        """``each(model, batches)``; the model is not asked for where there is no batch."""
        left = iter(batches)
        first = next(left, None)
        if first is not None:
            yield from each(self(), chain([first], left))

    def release(self) -> None:
        """Let it go."""
        self._model = None

    def flops(self, rows: int, width: int) -> float:
        """Of a pass over so many rows; see ``models.flops``. Known once the model has been loaded."""
        from mig_jax.models.inference.flops import forward_flops

        return forward_flops(self._shapes, self._config, rows, width)
