"""A pool in memory: columns of numbers, and the position of each row's bytes in its file."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float64, Int32, Int64, UInt8, UInt32

from mig_jax.core.errors import UserError
from mig_jax.core.html import Described
from mig_jax.pool.decode import Malformed, parse
from mig_jax.pool.exchanges import Exchange, exchanges_of
from mig_jax.pool.fields import Fields, resolve_fields
from mig_jax.pool.layouts import LAYOUTS, Layout, adapt, dialog_of
from mig_jax.pool.stream import stat_file

REASONS = ("usable", "malformed", "not an object", "no dialog")
"""The meaning of ``Pool.status``, by index. Only rows of status 0 can be selected."""

PRESENT, ABSENT, BAD_VALUE = 0, 1, 2
"""States of a value: present; missing or null; present, but of the wrong kind."""

REJECTS_LISTED = 10_000
"""The maximum length of ``Pool.rejects``; ``Pool.status`` covers all rows."""

Part = TypeVar("Part")


@dataclass(frozen=True)
class SourceInfo:
    """One file, as it was read.

    Args:
      path: the path that was opened; for a Hugging Face data set its ``hf:`` name.
      sha256: of the raw bytes of the file, hex; for ``hf:`` of its rows as an Arrow stream.
      size_bytes, mtime_ns: of the file; for ``hf:`` the length of the rows as JSON, and 0.
      rows: records in it, rejected ones included.
      layout: the name of its layout (a key of ``LAYOUTS``); empty if it has no records.
      format: ``jsonl``, ``json`` (one array), ``parquet`` or ``hf``.
      compression: ``""``, ``gz`` or ``zst``.
    """

    path: str
    sha256: str
    size_bytes: int
    mtime_ns: int
    rows: int
    layout: str
    format: str
    compression: str


@dataclass(frozen=True)
class Reject:
    """A row that is not a usable record.

    Args:
      row: its index in the pool.
      file, line: its file's path, and its 1-based line or record number.
      reason: one of ``REASONS``.
      detail: the reason in more words.
      head: the first 200 bytes; ``Pool.read_rows`` returns all of them.
    """

    row: int
    file: str
    line: int
    reason: str
    detail: str
    head: bytes


@dataclass(frozen=True, eq=False, repr=False)
class Pool(Described):
    """Every record of the files in order, rejected ones included: R rows. All arrays are read-only.

    Args:
      sources: the files.
      file: index into ``sources``.
      line: 1-based line number in the decompressed text; record number for json arrays, parquet and hf.
      offset, length: of the row's bytes in the decompressed text; for parquet and hf the 0-based record number, and the
        length of the record as JSON.
      crc: zlib.crc32 of the row's bytes.
      status: index into ``REASONS``; 0 is usable. Rows that are not objects have no values.
      tag_names: the distinct tags as written, in the order of first occurrence.
      tag_ptr, tag_idx: CSR; row r has the tags ``tag_idx[tag_ptr[r]:tag_ptr[r + 1]]``, with order and repetitions.
      tag_state, quality_state, complexity_state: PRESENT (also for an empty list), ABSENT or BAD_VALUE.
      quality_ptr, quality, complexity_ptr, complexity: CSR; a finite number per turn (a row's two lists may differ in
        length).
      ifd: NaN if absent or not a number.
      columns, columns_state: additional numeric columns by path; the mean of a list; NaN if the state is not PRESENT (a
        stored NaN or infinity is BAD_VALUE).
      tokens: -1 if absent.
      source_names, source_idx: the ``source`` labels of the rows; -1 if absent.
      id_ptr, id_blob: the ids as UTF-8, end to end; see ``id``.
      turns: messages in the dialog (a question and its answer are two); 0 without one.
      chars: characters of the contents of all turns.
      rejects: the rows of status other than 0, in order, the first ``REJECTS_LISTED`` of them.
      fields: the overrides with which it was loaded.
    """

    sources: tuple[SourceInfo, ...]
    file: Int32[np.ndarray, " R"]
    line: Int64[np.ndarray, " R"]
    offset: Int64[np.ndarray, " R"]
    length: Int64[np.ndarray, " R"]
    crc: UInt32[np.ndarray, " R"]
    status: UInt8[np.ndarray, " R"]
    tag_names: tuple[str, ...]
    tag_ptr: Int64[np.ndarray, " R1"]
    tag_idx: Int32[np.ndarray, " Z"]
    tag_state: UInt8[np.ndarray, " R"]
    quality_ptr: Int64[np.ndarray, " R1"]
    quality: Float64[np.ndarray, " Q"]
    quality_state: UInt8[np.ndarray, " R"]
    complexity_ptr: Int64[np.ndarray, " R1"]
    complexity: Float64[np.ndarray, " C"]
    complexity_state: UInt8[np.ndarray, " R"]
    ifd: Float64[np.ndarray, " R"]
    columns: dict[str, Float64[np.ndarray, " R"]]
    columns_state: dict[str, UInt8[np.ndarray, " R"]]
    tokens: Int64[np.ndarray, " R"]
    source_names: tuple[str, ...]
    source_idx: Int32[np.ndarray, " R"]
    id_ptr: Int64[np.ndarray, " R1"]
    id_blob: UInt8[np.ndarray, " B"]
    turns: Int32[np.ndarray, " R"]
    chars: Int64[np.ndarray, " R"]
    rejects: tuple[Reject, ...]
    fields: dict[str, str]

    def __len__(self) -> int:
        return len(self.file)

    def _facts(self) -> dict[str, str]:
        first, more = self.sources[0].path if self.sources else "none", len(self.sources) - 1
        return {
            "rows": f"{len(self):,}",
            "usable": f"{np.count_nonzero(self.status == 0):,}",
            "tags": f"{len(self.tag_names):,}",
            "sources": f"{len(self.source_names):,}",
            "files": first + (f" and {more:,} more" if more > 0 else ""),
        }

    def where(self, row: int) -> str:
        """``path:line`` of a row."""
        return f"{self.sources[self.file[row]].path}:{self.line[row]}"

    def id(self, row: int) -> str | None:
        """The row's id (a number as its digits); None if it is absent or empty."""
        blob = self.id_blob[self.id_ptr[row] : self.id_ptr[row + 1]]
        return blob.tobytes().decode() if len(blob) else None

    def no_objects(self) -> dict[int, str]:
        """The rows that are not JSON objects, in order, with the reason for each."""
        details = {reject.row: reject.detail or reject.reason for reject in self.rejects}
        statuses = [REASONS.index(reason) for reason in ("malformed", "not an object")]
        rows = np.flatnonzero(np.isin(self.status, statuses)).tolist()
        return {row: details.get(row) or REASONS[self.status[row]] for row in rows}

    def tags(self, row: int) -> list[str]:
        """The row's tags as written, with their order and repetitions; an empty list if it has none."""
        return [self.tag_names[i] for i in self.tag_idx[self.tag_ptr[row] : self.tag_ptr[row + 1]]]

    def read_rows(self, rows: Sequence[int] | np.ndarray) -> Iterator[bytes]:
        """The bytes of each row, in the order of ``rows``, without a line end, verified against ``crc``.

        A record of a .json array is returned on one line (line breaks between its tokens become spaces), a record of a
        parquet file or a data set as JSON. Plain files are read by offset, other files sequentially, once.

        Raises:
          UserError: a file is missing, or a row has changed; the message has its file and line.
          IndexError: a row outside 0 .. R - 1.
        """
        from mig_jax.pool.fetch import read_rows  # that module imports Pool

        indices = np.asarray(rows, dtype=np.int64).reshape(-1)
        if len(indices) and not (indices.min() >= 0 and indices.max() < len(self)):
            raise IndexError(f"rows must lie in 0 .. {len(self) - 1}")
        return read_rows(self, indices)

    def dialogs(self, rows: Sequence[int] | np.ndarray) -> list[list[tuple[str, str]]]:
        """``each_dialog`` as a list."""
        return list(self.each_dialog(rows))

    def each_dialog(self, rows: Sequence[int] | np.ndarray) -> Iterator[list[tuple[str, str]]]:
        """(role, content) of every turn of each row, in the order of ``rows``; human and gpt become user and assistant.

        An empty list for a row without a dialog. Raises as ``read_rows``.
        """
        return self._each(rows, lambda record, layout: dialog_of(record, layout) or [])

    def each_exchanges(self, rows: Sequence[int] | np.ndarray) -> Iterator[list[Exchange]]:
        """The exchanges of each row (``mig_jax.pool.exchanges``), in the order of ``rows``.

        An empty list for a row without a dialog, or without a turn of the user. Raises as ``read_rows``.
        """
        return self._each(rows, exchanges_of)

    def _each(
        self, rows: Sequence[int] | np.ndarray, parts: Callable[[Any, Layout], list[Part]]
    ) -> Iterator[list[Part]]:
        """``parts(record, layout)`` of each row; an empty list for a row that is not a record."""
        fields = self.resolved_fields()
        layouts = [adapt(LAYOUTS[source.layout], fields) if source.layout else None for source in self.sources]
        for row, raw in zip(np.asarray(rows, dtype=np.int64).reshape(-1), self.read_rows(rows), strict=True):
            layout = layouts[self.file[row]]
            try:
                yield parts(parse(raw), layout) if layout else []
            except Malformed:
                yield []

    def resolved_fields(self) -> Fields:
        """The paths of the fields in a record."""
        return resolve_fields(self.fields, tuple(self.columns))

    def check_unchanged(self) -> None:
        """Raise UserError if a file is missing, or its size or time of the last write has changed since it was read."""
        for source in self.sources:
            if source.format == "hf":
                continue
            status = stat_file(source.path)
            if (status.st_size, status.st_mtime_ns) != (source.size_bytes, source.mtime_ns):
                raise UserError(
                    f"changed since it was read ({source.size_bytes} -> {status.st_size} bytes); load the pool again",
                    where=source.path,
                )
