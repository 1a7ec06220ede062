"""Parquet files and Hugging Face data sets: rows that are made into JSON, one line each."""

import base64
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from mig_jax.core.errors import UserError
from mig_jax.pool.records import Block
from mig_jax.pool.sources import HF, Source
from mig_jax.pool.stream import FileReader, Stamp, identity, spool, stat_file

BATCH_ROWS = 1024


def _other(value: Any) -> Any:
    """Types that Arrow gives and JSON lacks (pandas' timestamps, ...), as their text."""
    return str(value)


_ENCODER = msgspec.json.Encoder(enc_hook=_other)


def to_json(record: dict[str, Any]) -> bytes:
    """The record as one line of JSON; NaN and infinities become null."""
    try:
        return _ENCODER.encode(record)
    except (UnicodeEncodeError, msgspec.EncodeError, TypeError, OverflowError):
        return _ENCODER.encode(_plain(record))


def _plain(value: Any) -> Any:
    """The same with text for whatever the encoder refuses (keys that are no strings, integers beyond 64 bits)."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value if value is None or isinstance(value, str | bool | float) else str(value)


def blocks_of(batches: Iterator[pa.RecordBatch | pa.Table]) -> Iterator[Block]:
    """Blocks of records, numbered from 1."""
    number = 0
    for batch in batches:
        objects = batch.to_pylist()
        numbers = range(number, number + len(objects))
        number += len(objects)
        if objects:
            yield Block([to_json(o) for o in objects], [n + 1 for n in numbers], list(numbers), {}, objects)


@contextmanager
def _open_parquet(
    source: Source, on_bytes: Callable[[int], Any] | None = None
) -> Iterator[tuple[pq.ParquetFile, IO[bytes] | None]]:
    """The file, and the temporary copy where it had to be decompressed. Arrow's errors become the user's."""
    copy: IO[bytes] | None = spool(source, on_bytes)[0] if source.compression else None
    try:
        with pq.ParquetFile(copy if copy is not None else source.path) as file:
            yield file, copy
    except (pa.ArrowException, OSError) as error:
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{source.path}: not a readable parquet file: {message}") from error
    finally:
        if copy is not None:
            copy.close()


def parquet_blocks(source: Source, on_bytes: Callable[[int], Any] | None, done: list[Stamp]) -> Iterator[Block]:
    """The records of a parquet file; the stamp of what was read goes into ``done`` at the end."""
    before = stat_file(source.path)
    stamp = FileReader(source, on_bytes=on_bytes).drain()
    with _open_parquet(source) as (file, _):
        # Strings can be views into the batch, so a batch is let go before the next one comes.
        yield from blocks_of(file.iter_batches(batch_size=BATCH_ROWS))
    if identity(before) != identity(stat_file(source.path)):
        raise UserError(f"{source.path}: changed while it was read; run again when it is written")
    done.append(stamp)


def parquet_records(source: Source, numbers: list[int]) -> Iterator[tuple[int, bytes]]:
    """(number, JSON) of the records with these 0-based, ascending numbers; reads only the row groups that hold them."""
    with _open_parquet(source) as (file, _):
        first, at = 0, 0
        for group in range(file.num_row_groups):
            end = first + file.metadata.row_group(group).num_rows
            if at < len(numbers) and numbers[at] < end:
                start = first
                for batch in file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group]):
                    chosen = []
                    while at < len(numbers) and numbers[at] < start + len(batch):
                        chosen.append(numbers[at])
                        at += 1
                    if chosen:
                        rows = batch.take(pa.array([n - start for n in chosen])).to_pylist()
                        yield from zip(chosen, map(to_json, rows), strict=True)
                    start += len(batch)
            first = end


# The data sets this process has loaded: reading rows back must not ask the hub again.
_loaded: dict[str, Any] = {}


def load_hf(path: str, again: bool = True) -> Any:
    """The data set ``hf:name`` or ``hf:name:split`` (split train), where ``name`` is on the hub or a local folder.

    Args:
      path: the whole name.
      again: load it anew; otherwise what this process loaded before will do.

    Raises:
      UserError: ``datasets`` is not installed, the hub cannot be reached, or there is no such data set or split.
    """
    if not again and path in _loaded:
        return _loaded[path]
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"{path}: reading hf: needs the package `datasets`; install mig_jax[hub]") from error
    name, split = path.removeprefix(HF), "train"
    head, colon, tail = name.rpartition(":")
    if colon and head and "/" not in tail:
        name, split = head, tail
    quiet = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset(name, split=split)
    except Exception as error:  # datasets raises dozens of types: hub, network, builders
        message = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(
            f"{path}: cannot be loaded by datasets (split {split!r}): {message}. Write hf:org/name or "
            "hf:org/name:split; without a network, download the files and name them instead"
        ) from error
    finally:
        if quiet:
            datasets.enable_progress_bars()
    _loaded[path] = found
    return found


def hf_batches(dataset: Any, sha256: Any = None) -> Iterator[pa.Table]:
    """Tables of a thousand rows, in order; each is fed to ``sha256`` as an Arrow stream."""
    arrow = dataset.with_format("arrow")
    for start in range(0, len(dataset), BATCH_ROWS):
        table = arrow[start : start + BATCH_ROWS]
        if sha256 is not None:
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table.combine_chunks())
            sha256.update(sink.getvalue())
        yield table


def hf_blocks(path: str, done: list[Stamp]) -> Iterator[Block]:
    """The records of a data set; its stamp goes into ``done`` at the end."""
    sha256, size = hashlib.sha256(), 0
    for block in blocks_of(hf_batches(load_hf(path, again=False), sha256)):
        size += sum(map(len, block.records))
        yield block
    done.append(Stamp(sha256.hexdigest(), size, 0))


def hf_sha256(path: str) -> str:
    """What ``hf_blocks`` would give, without making records."""
    sha256 = hashlib.sha256()
    for _ in hf_batches(load_hf(path, again=False), sha256):
        pass
    return sha256.hexdigest()


def hf_records(path: str, numbers: list[int]) -> Iterator[tuple[int, bytes]]:
    """(number, JSON) of the records with these 0-based numbers."""
    dataset = load_hf(path, again=False)
    arrow = dataset.with_format("arrow")
    for start in range(0, len(numbers), BATCH_ROWS):
        chosen = [n for n in numbers[start : start + BATCH_ROWS] if n < len(dataset)]
        if chosen:
            yield from zip(chosen, map(to_json, arrow[chosen].to_pylist()), strict=True)
