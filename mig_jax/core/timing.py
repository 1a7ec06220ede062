"""The seconds of a run by stage, for its manifest."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

_COMPILING = ("/jax/core/compile/backend_compile_duration", "/jax/core/compile/jaxpr_to_mlir_module_duration")
_LONGEST_START = 60.0  # seconds
_began: list[float] = []


def begin(*, process: bool = False) -> None:
    """Mark the start of the command; the next ``Stopwatch`` counts the time since then (imports, config) as "start".

    Args:
      process: the command began when this process did, so that the interpreter and the first imports count too.
    """
    _began[:] = [time.perf_counter() - (_age_of_process() if process else 0.0)]


def _age_of_process() -> float:
    """Seconds since this process began, from Linux's clock ticks since boot; 0 where they are not known."""
    try:
        with open("/proc/self/stat", "rb") as file:  # noqa: PTH123  (pathlib is not needed here, and takes time)
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0
    return age if 0.0 < age < _LONGEST_START else 0.0  # a container may show the clock of another machine


class Stopwatch:
    """Seconds by stage, in the order in which the stages end. The time of JAX's compiler is a stage of its own,
    "compile"."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._compiled = 0.0
        if _began:
            self.seconds["start"] = time.perf_counter() - _began.pop()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the body of the ``with`` statement."""
        start, compiled = time.perf_counter(), self._compiled
        yield
        compiled = self._compiled - compiled
        for part, seconds in (("compile", compiled), (name, time.perf_counter() - start - compiled)):
            if seconds:
                self.seconds[part] = self.seconds.get(part, 0.0) + seconds

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """Count the time that JAX's compiler takes in the body of the ``with`` statement."""
        import jax  # a second, which commands without a model or an engine save

        jax.monitoring.register_event_duration_secs_listener(self._listen)
        try:
            yield
        finally:
            jax.monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event in _COMPILING:
            self._compiled += duration_secs
