"""``load_pool``: sources -> blocks of records -> columns, or the same columns from the cache."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mig_jax.core.errors import UserError
from mig_jax.core.progress import Progress, silent
from mig_jax.pool.builder import Builder
from mig_jax.pool.cache import Cache, content_key
from mig_jax.pool.decode import Malformed, RowDecoder, parse
from mig_jax.pool.fields import Fields, resolve_fields
from mig_jax.pool.layouts import LAYOUTS, Layout, adapt, check_layout, infer_layout
from mig_jax.pool.parallel import Parsers, workers_for
from mig_jax.pool.records import Block, array_blocks, line_blocks, starts_array, whole_lines
from mig_jax.pool.sources import Source, resolve
from mig_jax.pool.stream import BLOCK_BYTES, FileReader, Stamp, stat_file
from mig_jax.pool.table import REASONS, Pool, SourceInfo
from mig_jax.pool.tabular import hf_blocks, hf_sha256, load_hf, parquet_blocks
from mig_jax.pool.worker import Setup, Task, parse_task


def load_pool(
    path: str | Path | Sequence[str | Path],
    *,
    layout: str = "auto",
    fields: Mapping[str, str] | None = None,
    columns: Sequence[str] = (),
    on_error: str = "raise",
    cache_dir: str | Path | None = None,
    progress: Progress = silent,
    block_bytes: int = BLOCK_BYTES,
    workers: int | None = None,
    extra_key: Mapping[str, Any] | None = None,
) -> Pool:
    """Read a pool as a stream: only the columns of ``Pool`` stay in memory, not the text.

    Args:
      path: a file (.jsonl, .ndjson, .json, .parquet, each also .gz or .zst), a folder (all such files in it and
        below), a glob, ``hf:org/name`` or ``hf:org/name:split``, or a list of these. The rows are in this order.
      layout: a key of ``LAYOUTS``, or ``auto``: it is inferred from the first record of each file.
      fields: dotted paths that replace those of ``FIELDS``, or that map the dialog.
      columns: dotted paths of more numbers to read.
      on_error: for a record that is malformed or not an object: ``raise`` an error, or ``skip`` and count it. A record
        without a dialog is always skipped and counted.
      cache_dir: the folder of the cache of pools; None: no cache.
      progress: called with the bytes done and their total, in the stages "hash pool" and "read pool".
      block_bytes: the bytes of a file that are read at once; the result does not depend on it.
      workers: additional processes that parse .jsonl files; None: one per core if the pool is large. The result does
        not depend on it.
      extra_key: other settings that change the result; they become part of the cache key.

    Raises:
      UserError: as above; also an empty pool, a pool without a usable record, and a file that changes during the read.
    """
    if on_error not in ("raise", "skip"):
        raise UserError(key="pool.on_error", value=on_error, allowed=("raise", "skip"))
    check_layout(layout)
    overrides = {name: value for name, value in (fields or {}).items() if value is not None}
    paths = resolve_fields(overrides, columns)
    sources = resolve(path)
    sizes = [_size(source) for source in sources]
    cache = None
    settings = {"layout": layout, "fields": overrides, "columns": list(paths.columns), "on_error": on_error}
    settings |= extra_key or {}
    if cache_dir is not None:
        kinds = [(source.format, source.compression) for source in sources]
        settings = settings | {"kinds": kinds}
        cache = Cache(Path(cache_dir), content_key(settings, sizes))
        if cache.may_hold():
            stamps = _stamps(sources, _Bytes(progress, "hash pool", sum(sizes)))
            key = content_key(settings, [stamp.sha256 for stamp in stamps])
            if cached := cache.load(key, [source.path for source in sources], [stamp.mtime_ns for stamp in stamps]):
                return cached
    builder = Builder(paths, skip=on_error == "skip")
    done = _Bytes(progress, "read pool", sum(sizes))
    decoders: dict[Layout, RowDecoder] = {}
    lines = sum(size for source, size in zip(sources, sizes, strict=True) if source.format == "jsonl")
    with Parsers(workers_for(lines) if workers is None else workers, Setup(paths, on_error == "skip")) as parsers:
        infos = [
            _read(builder, i, source, layout, paths, decoders, done, block_bytes, parsers)
            for i, source in enumerate(sources)
        ]
    pool = builder.finish(infos, overrides)
    _check_usable(pool)
    if cache is not None:
        cache.store(content_key(settings, [info.sha256 for info in infos]), pool)
    return pool


class _Bytes:
    """Add up the bytes done, and report them to a ``Progress``."""

    def __init__(self, progress: Progress, stage: str, total: int):
        self._progress, self._stage, self._total, self._done = progress, stage, total, 0

    def __call__(self, count: int) -> None:
        self._done += count
        self._progress(self._stage, self._done, self._total or None, "bytes")


def _size(source: Source) -> int:
    """Bytes of a file; 0 for a data set, which is loaded here: its size is not known."""
    if source.format == "hf":
        load_hf(source.path)
        return 0
    return stat_file(source.path).st_size


def _stamps(sources: Sequence[Source], done: _Bytes) -> list[Stamp]:
    return [
        Stamp(hf_sha256(source.path), 0, 0) if source.format == "hf" else FileReader(source, on_bytes=done).drain()
        for source in sources
    ]


def _read(
    builder: Builder,
    file: int,
    source: Source,
    layout: str,
    fields: Fields,
    decoders: dict[Layout, RowDecoder],
    done: _Bytes,
    block_bytes: int,
    parsers: Parsers,
) -> SourceInfo:
    """Append the records of one source to the builder."""
    stamps: list[Stamp] = []
    before = len(builder)
    chosen = None if layout == "auto" else adapt(LAYOUTS[layout], fields)
    if parsers.count and source.format == "jsonl":
        use = chosen or _peek_layout(source, fields, block_bytes)
        if use is not None:
            decoder = decoders.setdefault(use, RowDecoder(use, fields))
            stamp = _read_lines(builder, file, source, decoder, done, parsers)
            name = use.name if len(builder) > before else ""
            return SourceInfo(source.path, *stamp, len(builder) - before, name, "jsonl", source.compression)
    opened, blocks = _open(source, done, block_bytes, stamps)
    for block in blocks:
        if source.format == "json" and opened == "jsonl" and len(builder) == before and not builder.skip:
            _check_line(block, source.path)
        if chosen is None:
            chosen = _first_layout(block, fields, source.path)
        # Without a layout, no record so far is an object, and any decoder rejects them.
        use = chosen or LAYOUTS["mig"]
        if use not in decoders:
            decoders[use] = RowDecoder(use, fields)
        builder.add(block, file, source.path, decoders[use])
    (stamp,) = stamps
    name = chosen.name if chosen else ""
    return SourceInfo(source.path, *stamp, len(builder) - before, name, opened, source.compression)


def _peek_layout(source: Source, fields: Fields, block_bytes: int) -> Layout | None:
    """The layout of the first record in the first block; None if no record there is an object."""
    first = next(line_blocks(iter(FileReader(source, block_bytes))), None)
    return None if first is None else _first_layout(first, fields, source.path)


def _read_lines(
    builder: Builder, file: int, source: Source, decoder: RowDecoder, done: _Bytes, parsers: Parsers
) -> Stamp:
    """Append the records of a .jsonl file that other processes parse."""
    reader = FileReader(source, on_bytes=done)
    line = 0
    for task, part in parsers.parse(_tasks(reader, source, decoder.layout)):
        if part is None:
            line += parse_task(builder, task, decoder, file, line)
        else:
            builder.join(part, file, source.path, line)
            line += part.lines
    assert reader.stamp is not None
    status = stat_file(source.path)
    if (status.st_size, status.st_mtime_ns) != (reader.stamp.size_bytes, reader.stamp.mtime_ns):
        raise UserError("changed while it was read; run again when it is complete", where=source.path)
    return reader.stamp


def _tasks(reader: FileReader, source: Source, layout: Layout) -> Iterator[Task]:
    if not source.compression:
        for start, end in reader.spans():
            yield Task(source.path, layout, start, end)
        return
    start = 0
    for text in whole_lines(iter(reader)):
        yield Task(source.path, layout, start, start + len(text), text)
        start += len(text)


def _open(source: Source, done: _Bytes, block_bytes: int, stamps: list[Stamp]) -> tuple[str, Iterator[Block]]:
    """The format by content, and the blocks; after the last block, ``stamps`` has the stamp of the file."""
    if source.format == "hf":
        return "hf", hf_blocks(source.path, stamps)
    if source.format == "parquet":
        return "parquet", parquet_blocks(source, done, stamps)
    reader = FileReader(source, block_bytes, done)
    # Many .json files have one object per line; the first character decides.
    is_array, text = starts_array(iter(reader)) if source.format == "json" else (False, iter(reader))
    blocks = array_blocks(text, source.path) if is_array else line_blocks(text)
    return ("json" if is_array else "jsonl"), _stamped(blocks, reader, stamps)


def _stamped(blocks: Iterator[Block], reader: FileReader, stamps: list[Stamp]) -> Iterator[Block]:
    yield from blocks
    assert reader.stamp is not None
    stamps.append(reader.stamp)


def _check_line(block: Block, path: str) -> None:
    """A .json file with one object over many lines is malformed at `{`: extend the message with the allowed content."""
    try:
        parse(block.records[0])
    except Malformed as error:
        raise UserError(
            f"malformed: {error} (a .json file is an array of records, or has one record per line)",
            where=f"{path}:{block.lines[0]}",
        ) from error


def _first_layout(block: Block, fields: Fields, path: str) -> Layout | None:
    """The layout of the first record in the block that is an object; None if there is none."""
    for i, raw in enumerate(block.records):
        try:
            record = parse(raw) if i not in block.bad else None
        except Malformed:
            continue
        if isinstance(record, dict):
            return infer_layout(record, fields, f"{path}:{block.lines[i]}")
    return None


def _check_usable(pool: Pool) -> None:
    names = ", ".join(source.path for source in pool.sources[:3]) + (", ..." if len(pool.sources) > 3 else "")
    if not len(pool):
        raise UserError("an empty pool: it has no records", where=names)
    counts = np.bincount(pool.status, minlength=len(REASONS)).tolist()
    if not counts[0]:
        listed = ", ".join(f"{count} {reason}" for reason, count in zip(REASONS, counts, strict=True) if count)
        first = pool.rejects[0]
        raise UserError(
            f"no usable record among {len(pool)}: {listed}. The first is {first.file}:{first.line}: {first.detail}",
            where=names,
        )
