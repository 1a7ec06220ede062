"""A worker process that parses ranges of lines: it reads tasks from stdin and writes a ``Part``, or nothing, for each.

``mig_jax.pool.parallel`` starts it with ``python -c``, so that programs without an ``if __name__`` guard work.
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
    """The settings that all tasks of a pool share."""

    fields: Fields
    skip: bool


class Task(msgspec.Struct, array_like=True):
    """A range of whole lines: bytes ``start`` to ``end`` of the decompressed ``path``, or ``text`` if given."""

    path: str
    layout: Layout
    start: int
    end: int
    text: bytes | None = None

    def blocks(self) -> Iterator[bytes]:
        """The bytes of the range.

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
            raise UserError(f"cannot be read: {error.strerror or error}", where=self.path) from error


def parse_task(builder: Builder, task: Task, decoder: RowDecoder, file: int = 0, line: int = 0) -> int:
    """Append the rows of the task to the builder, and return its number of lines.

    Args:
      line: the number of lines before the task in its file.

    Raises:
      UserError: as ``Builder.add``; or the file cannot be read.
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
    """Write a message with its length before it."""
    file.write(len(message).to_bytes(8, "little"))
    file.write(message)
    file.flush()


def receive(file: IO[bytes]) -> bytes:
    """Read the next message.

    Raises:
      EOFError: there is no complete message.
    """
    head = file.read(8)
    message = file.read(int.from_bytes(head, "little")) if len(head) == 8 else b""
    if len(head) < 8 or len(message) < int.from_bytes(head, "little"):
        raise EOFError
    return message


def main() -> None:
    """Answer tasks until stdin ends."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches all processes of a terminal; the main process ends this one
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
            lines = parse_task(builder, task, decoders[task.layout])
            answer = msgspec.msgpack.encode(builder.part(lines))
        except Exception:
            answer = b""  # the main process parses the task again and reports the error with its line number
        send(sink, answer)
