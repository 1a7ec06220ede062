"""Parquet files and Hugging Face data sets: each row is converted to one line of JSON."""

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


def _as_text(value: Any) -> Any:
    """Values of types that JSON does not have (timestamps, ...), as text."""
    return str(value)


_ENCODER = msgspec.json.Encoder(enc_hook=_as_text)


def to_json(record: dict[str, Any]) -> bytes:
    """The record as one line of JSON; NaN and infinities become null."""
    try:
        return _ENCODER.encode(record)
    except (UnicodeEncodeError, msgspec.EncodeError, TypeError, OverflowError):
        return _ENCODER.encode(_plain(record))


def _plain(value: Any) -> Any:
    """The value, with text for all that the encoder refuses (keys that are not strings, integers beyond 64 bits)."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value if value is None or isinstance(value, str | bool | float) else str(value)


def record_blocks(batches: Iterator[pa.RecordBatch | pa.Table]) -> Iterator[Block]:
    """Blocks of records, numbered from 1."""
    number = 0
    for batch in batches:
        objects = batch.to_pylist()
        numbers = range(number, number + len(objects))
        number += len(objects)
        if objects:
            yield Block([to_json(record) for record in objects], [n + 1 for n in numbers], list(numbers), {}, objects)


@contextmanager
def _open_parquet(
    source: Source, on_bytes: Callable[[int], Any] | None = None
) -> Iterator[tuple[pq.ParquetFile, IO[bytes] | None]]:
    """The file, and its decompressed temporary copy if it was compressed. Errors of Arrow become UserError."""
    copy: IO[bytes] | None = spool(source, on_bytes)[0] if source.compression else None
    try:
        with pq.ParquetFile(copy if copy is not None else source.path) as file:
            yield file, copy
    except (pa.ArrowException, OSError) as error:
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"not a readable parquet file: {message}", where=source.path) from error
    finally:
        if copy is not None:
            copy.close()


def parquet_blocks(source: Source, on_bytes: Callable[[int], Any] | None, stamps: list[Stamp]) -> Iterator[Block]:
    """The records of a parquet file; at the end, its stamp is appended to ``stamps``."""
    before = stat_file(source.path)
    stamp = FileReader(source, on_bytes=on_bytes).drain()
    with _open_parquet(source) as (file, _):
        # Strings can be views into the batch, so a batch is released before the next one is read.
        yield from record_blocks(file.iter_batches(batch_size=BATCH_ROWS))
    if identity(before) != identity(stat_file(source.path)):
        raise UserError("changed while it was read; run again when it is complete", where=source.path)
    stamps.append(stamp)


def parquet_records(source: Source, numbers: list[int]) -> Iterator[tuple[int, bytes]]:
    """(number, JSON) of the records with these 0-based, ascending numbers; reads only their row groups."""
    with _open_parquet(source) as (file, _):
        first, i = 0, 0  # the group's first record; the index into numbers
        for group in range(file.num_row_groups):
            end = first + file.metadata.row_group(group).num_rows
            if i < len(numbers) and numbers[i] < end:
                start = first
                for batch in file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group]):
                    chosen = []
                    while i < len(numbers) and numbers[i] < start + len(batch):
                        chosen.append(numbers[i])
                        i += 1
                    if chosen:
                        rows = batch.take(pa.array([n - start for n in chosen])).to_pylist()
                        yield from zip(chosen, map(to_json, rows), strict=True)
                    start += len(batch)
            first = end


# The data sets that this process has loaded: reading rows again must not access the hub.
_loaded: dict[str, Any] = {}


def load_hf(path: str, reload: bool = True) -> Any:
    """Load the data set ``hf:name`` (split train) or ``hf:name:split``; ``name`` is on the hub or a local folder.

    Args:
      path: the whole name.
      reload: load it even if this process has loaded it before.

    Raises:
      UserError: ``datasets`` is not installed, the hub cannot be reached, or there is no such data set or split.
    """
    if not reload and path in _loaded:
        return _loaded[path]
    try:
        import datasets
    except ImportError as error:
        raise UserError("reading hf: requires the package `datasets`; install mig_jax[hub]", where=path) from error
    name, split = path.removeprefix(HF), "train"
    head, colon, tail = name.rpartition(":")
    if colon and head and "/" not in tail:
        name, split = head, tail
    bars_enabled = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        dataset = datasets.load_dataset(name, split=split)
    except Exception as error:  # datasets raises dozens of types: hub, network, builders
        message = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(
            f"cannot be loaded by datasets (split {split!r}): {message}. Write hf:org/name or hf:org/name:split; "
            "without a network, download the files and give their paths",
            where=path,
        ) from error
    finally:
        if bars_enabled:
            datasets.enable_progress_bars()
    _loaded[path] = dataset
    return dataset


def hf_batches(dataset: Any, sha256: Any = None) -> Iterator[pa.Table]:
    """Tables of 1,024 rows, in order; ``sha256`` is updated with each as an Arrow stream."""
    arrow = dataset.with_format("arrow")
    for start in range(0, len(dataset), BATCH_ROWS):
        table = arrow[start : start + BATCH_ROWS]
        if sha256 is not None:
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table.combine_chunks())
            sha256.update(sink.getvalue())
        yield table


def hf_blocks(path: str, stamps: list[Stamp]) -> Iterator[Block]:
    """The records of a data set; at the end, its stamp is appended to ``stamps``."""
    sha256, size = hashlib.sha256(), 0
    for block in record_blocks(hf_batches(load_hf(path, reload=False), sha256)):
        size += sum(map(len, block.records))
        yield block
    stamps.append(Stamp(sha256.hexdigest(), size, 0))


def hf_sha256(path: str) -> str:
    """The sha256 of ``hf_blocks``' stamp, without converting records."""
    sha256 = hashlib.sha256()
    for _ in hf_batches(load_hf(path, reload=False), sha256):
        pass
    return sha256.hexdigest()


def hf_records(path: str, numbers: list[int]) -> Iterator[tuple[int, bytes]]:
    """(number, JSON) of the records with these 0-based numbers."""
    dataset = load_hf(path, reload=False)
    arrow = dataset.with_format("arrow")
    for start in range(0, len(numbers), BATCH_ROWS):
        chosen = [n for n in numbers[start : start + BATCH_ROWS] if n < len(dataset)]
        if chosen:
            yield from zip(chosen, map(to_json, arrow[chosen].to_pylist()), strict=True)
