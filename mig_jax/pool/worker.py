"""A process that parses runs of lines for another: tasks come on stdin, a ``Part`` or nothing goes back for each.

``python -c`` starts it (see ``mig_jax.pool.parallel``), so that a program without an ``if __name__`` guard is safe.
"""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec

from mig_jax.core.errors import UserError
from mig_jax.pool.builder import Builder
from mig_jax.pool.decode import RowDecoder
from mig_jax.pool.fields import Fields
from mig_jax.pool.layouts import Layout
from mig_jax.pool.records import line_blocks
from mig_jax.pool.stream import BLOCK_BYTES


class Setup(msgspec.Struct, array_like=True):
    """What holds for a whole pool."""

    fields: Fields
    skip: bool


class Task(msgspec.Struct, array_like=True):
    """A run of whole lines: bytes ``start`` to ``end`` of the decompressed ``path``, or that ``text`` itself."""

    path: str
    layout: Layout
    start: int
    end: int
    text: bytes | None = None

    def blocks(self) -> Iterator[bytes]:
        """The run's bytes.

        Raises:
          UserError: the file cannot be read.
        """
        if self.text is not None:
            yield self.text
            return
        try:
            with Path(self.path).open("rb", buffering=0) as file:
                file.seek(self.start)
                left = self.end - self.start
                while left and (block := file.read(min(left, BLOCK_BYTES))):
                    left -= len(block)
                    yield block
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read: {error.strerror or error}") from error


def parse_run(builder: Builder, task: Task, decoder: RowDecoder, file: int = 0, line: int = 0) -> int:
    """Appends the run's rows to the builder; how many lines it has. ``line``: how many lie before it.

    Raises:
      UserError: as ``Builder.add``, and the file cannot be read.
    """
    lines = 0

    def counted() -> Iterator[bytes]:
        nonlocal lines
        for block in task.blocks():
            lines += block.count(b"\n")
            yield block

    for block in line_blocks(counted(), line, task.start):
        builder.add(block, file, task.path, decoder)
    return lines


def send(file: IO[bytes], message: bytes) -> None:
    """A message with its length before it."""
    file.write(len(message).to_bytes(8, "little"))
    file.write(message)
    file.flush()


def receive(file: IO[bytes]) -> bytes:
    """The next message.

    Raises:
      EOFError: there is none.
    """
    head = file.read(8)
    message = file.read(int.from_bytes(head, "little")) if len(head) == 8 else b""
    if len(head) < 8 or len(message) < int.from_bytes(head, "little"):
        raise EOFError
    return message


def main() -> None:
    """Until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to every process of a terminal; the one that asks ends
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    setup = msgspec.msgpack.decode(receive(source), type=Setup)
    tasks, decoders = msgspec.msgpack.Decoder(Task), {}
    while True:
        try:
            task = tasks.decode(receive(source))
        except EOFError:
            return
        try:
            if task.layout not in decoders:
                decoders[task.layout] = RowDecoder(task.layout, setup.fields)
            builder = Builder(setup.fields, setup.skip)
            lines = parse_run(builder, task, decoders[task.layout])
            answer = msgspec.msgpack.encode(builder.part(lines))
        except Exception:
            answer = b""  # the process that asks does it again, knows the line numbers, and says what is wrong
        send(sink, answer)
