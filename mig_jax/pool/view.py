"""The part of a pool that writing a run's files requires: a Protocol, also implemented by fakes in tests."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from mig_jax.core.json_files import clean_text


class SourceView(Protocol):
    """One file of a pool, as the manifest lists it."""

    @property
    def path(self) -> Any: ...
    @property
    def sha256(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def layout(self) -> str: ...
    @property
    def format(self) -> str: ...


class PoolView(Protocol):
    """``mig_jax.pool.Pool``: R rows. Arrays are per pool row; -1 means unknown."""

    @property
    def sources(self) -> Sequence[SourceView]: ...
    @property
    def fields(self) -> Mapping[str, str]: ...  # the user's overrides of paths
    @property
    def source_names(self) -> Sequence[str]: ...
    @property
    def source_idx(self) -> np.ndarray: ...  # int32 [R], into source_names
    @property
    def turns(self) -> np.ndarray: ...  # int32 [R]
    @property
    def chars(self) -> np.ndarray: ...  # int64 [R]
    @property
    def tokens(self) -> np.ndarray: ...  # int64 [R]

    def __len__(self) -> int: ...
    def where(self, row: int, /) -> str: ...
    def id(self, row: int, /) -> str | None: ...
    def read_rows(self, rows: Any, /) -> Iterator[bytes]: ...
    def dialogs(self, rows: Any, /) -> Sequence[list[tuple[str, str]]]: ...


def source_name(pool: PoolView, row: int) -> str | None:
    """The source of a row; None if it has none."""
    source = int(pool.source_idx[row])
    return None if source < 0 else clean_text(pool.source_names[source])
