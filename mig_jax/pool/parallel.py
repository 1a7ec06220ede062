"""Parse lines in several processes: each gets ranges of whole lines and returns parts of a pool; the order is kept.

The main process reads each file once, for its hash and its line ends; the workers read the ranges that they parse.
"""

import os
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import msgspec

from mig_jax.pool.builder import Part
from mig_jax.pool.worker import Setup, Task, receive, send

MIN_BYTES = 1 << 26  # a smaller pool is read before another process has started
MAX_WORKERS = 8  # with more, all wait for the process that hashes
_START = "import sys; sys.path[:] = {path!r}; from mig_jax.pool.worker import main; main()"


def workers_for(size: int) -> int:
    """The number of worker processes for a pool of ``size`` bytes; 0: parse in this process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MAX_WORKERS) if cores > 1 and size >= MIN_BYTES else 0


class Parsers:
    """``count`` processes, started at the first ``parse``; a context manager that ends them."""

    def __init__(self, count: int, setup: Setup):
        self.count, self._setup = count, msgspec.msgpack.encode(setup)
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._all: list[subprocess.Popen[bytes]] = []
        self._threads = ThreadPoolExecutor(max(count, 1))

    def __enter__(self) -> "Parsers":
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        for process in self._all:
            for stream in (process.stdin, process.stdout):
                with suppress(OSError):
                    stream.close()  # type: ignore[union-attr]
            process.wait()

    def parse(self, tasks: Iterator[Task]) -> Iterator[tuple[Task, Part | None]]:
        """(task, part) for each task, in order; the part is None if its process failed."""
        if not self._all:
            self._start()
        pending: deque[tuple[Task, Future[Part | None]]] = deque()
        for task in tasks:
            pending.append((task, self._threads.submit(self._send_task, task)))
            while pending and (pending[0][1].done() or len(pending) > 3 * self.count):
                task, part = pending.popleft()
                yield task, part.result()
        while pending:
            task, part = pending.popleft()
            yield task, part.result()

    def _start(self) -> None:
        command = [sys.executable, "-I", "-c", _START.format(path=sys.path)]
        for _ in range(self.count):
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            self._all.append(process)
            self._idle.put(process)
            with suppress(OSError):
                send(process.stdin, self._setup)  # type: ignore[arg-type]

    def _send_task(self, task: Task) -> Part | None:
        process = self._idle.get()
        try:
            send(process.stdin, msgspec.msgpack.encode(task))  # type: ignore[arg-type]
            answer = receive(process.stdout)  # type: ignore[arg-type]
            return msgspec.msgpack.decode(answer, type=Part) if answer else None
        except (OSError, EOFError, ValueError):  # the process has ended (for instance, killed for memory)
            return None
        finally:
            self._idle.put(process)
