"""Where a run's seconds go, for its manifest."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

_COMPILING = ("/jax/core/compile/backend_compile_duration", "/jax/core/compile/jaxpr_to_mlir_module_duration")
_began: list[float] = []


def begin() -> None:
    """The command starts here; the next ``Stopwatch`` counts from it (imports, configuration) as "start"."""
    _began[:] = [time.perf_counter()]


class Stopwatch:
    """Seconds by stage, in the order in which the stages end. What JAX compiles counts apart, as "compile"."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._compiled = 0.0
        if _began:
            self.seconds["start"] = time.perf_counter() - _began.pop()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        start, compiled = time.perf_counter(), self._compiled
        yield
        compiled = self._compiled - compiled
        for part, seconds in (("compile", compiled), (name, time.perf_counter() - start - compiled)):
            if seconds:
                self.seconds[part] = self.seconds.get(part, 0.0) + seconds

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """Count what JAX compiles inside."""
        import jax

        jax.monitoring.register_event_duration_secs_listener(self._listen)
        try:
            yield
        finally:
            jax.monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event in _COMPILING:
            self._compiled += duration_secs
