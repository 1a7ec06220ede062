"""The texts to embed: the rows of a pool, its labels, or a plain file; streamed, never all in memory."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Bool

from mig_jax.commands.embed.config import EmbedConfig
from mig_jax.config.struct import key_of
from mig_jax.core.errors import UserError
from mig_jax.core.progress import Progress, silent
from mig_jax.labels.valid_tags import labels_of, read_valid_tags
from mig_jax.pool import Pool
from mig_jax.pool.configured import pool_of
from mig_jax.runs.manifest import Source, sources_of

BETWEEN = "\n\n"  # the turns of a row
_BOM = b"\xef\xbb\xbf"
_PEEK = 1 << 16


@dataclass(frozen=True)
class Texts:
    """N texts.

    Args:
      target: "rows", "labels" or "texts".
      count: N.
      each: yields them, in order, anew at each call.
      without: entries that are no text: rows without a dialog; bool ``[N]``.
      decides: what they depend on, plain: contents by their hashes.
      sources: the files that were read.
      names: the labels; None for rows and texts.
      check: raises UserError where a file has changed since.
    """

    target: str
    count: int
    each: Callable[[], Iterator[str]]
    without: Bool[np.ndarray, " N"]
    decides: dict[str, Any]
    sources: tuple[Source, ...]
    names: tuple[str, ...] | None = None
    check: Callable[[], None] = lambda: None


def texts_of(config: EmbedConfig, cache: Path | None, progress: Progress = silent, pool: Pool | None = None) -> Texts:
    """The texts that the configuration names.

    Args:
      cache: of pools.
      pool: the pool of ``config.pool``, where the caller has read it already.

    Raises:
      UserError: as ``load_pool``; also a file without a text, labels asked of a file of texts, no label.
    """
    file = _plain_file(config) if pool is None else None
    if file is not None:
        if config.embed.target == "labels":
            raise UserError(f"{file} holds texts; labels are the tags of a pool", key="embed.target", value="labels")
        return _lines(file) if file.suffix == ".txt" else _list(file)
    pool = pool_of(config.pool, (), cache, progress) if pool is None else pool
    return _labels(pool, config) if config.embed.target == "labels" else _rows(pool, config)


def _rows(pool: Pool, config: EmbedConfig) -> Texts:
    """One text a row: the contents of its turns, a blank line between them."""
    settings = key_of(config.pool, without=("name",))
    decides = {"of": "rows", "files": [source.sha256 for source in pool.sources], **settings}

    def each() -> Iterator[str]:
        for turns in pool.each_dialog(np.arange(len(pool))):
            yield BETWEEN.join(content for _, content in turns)

    return Texts("rows", len(pool), each, pool.status != 0, decides, sources_of(pool), check=pool.check_unchanged)


def _labels(pool: Pool, config: EmbedConfig) -> Texts:
    """The distinct labels of the tags, sorted; tags outside pool.valid_tags do not count."""
    valid = None if config.pool.valid_tags is None else read_valid_tags(config.pool.valid_tags)
    names = tuple(sorted({name for name in labels_of(pool.tag_names, valid) if name is not None}))
    if not names:
        raise UserError(
            f"none of the pool's {len(pool.tag_names)} distinct tags counts as a label; do pool.valid_tags and the "
            "pool belong together, and pool.fields.tags and its rows?",
            key="embed.target",
            value="labels",
        )
    digest = hashlib.sha256("\0".join(names).encode("utf-8", "surrogatepass")).hexdigest()
    decides = {"of": "labels", "names": digest}
    return Texts("labels", len(names), lambda: iter(names), _none(len(names)), decides, sources_of(pool), names)


def _plain_file(config: EmbedConfig) -> Path | None:
    """The file of texts that pool.path names: a .txt, or a .json that is a list of strings; None: it is a pool."""
    path = Path(config.pool.paths[0]) if len(config.pool.paths) == 1 else Path()
    if not path.is_file():
        return None
    if path.suffix == ".json":
        with path.open("rb") as file:
            head = file.read(_PEEK).removeprefix(_BOM).lstrip()
        return path if head[:1] == b"[" and head[1:].lstrip()[:1] in (b'"', b"]") else None
    return path if path.suffix == ".txt" else None


def _lines(path: Path) -> Texts:
    """One text a line; an empty line is an empty text."""
    count, digest = 0, hashlib.sha256()
    with path.open("rb") as file:
        for line in file:
            count += line != _BOM or count > 0  # a file that is nothing but this mark has no line
            digest.update(line)
            try:
                line.decode()
            except UnicodeDecodeError as error:
                raise UserError(f"{path}:{count}: not UTF-8 ({error.reason})") from None

    def each() -> Iterator[str]:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for line in file:
                yield line.removesuffix("\n").removesuffix("\r")

    return _of_file(path, count, each, digest.hexdigest())


def _list(path: Path) -> Texts:
    """A JSON list of strings."""
    raw = path.read_bytes()
    try:
        texts = msgspec.json.decode(raw.removeprefix(_BOM), type=list[str])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        texts = _with_halves(raw.removeprefix(_BOM))
        if texts is None:
            raise UserError(f"{path}: must be a list of strings, as it begins, or a pool: {error}") from None
    return _of_file(path, len(texts), lambda: iter(texts), hashlib.sha256(raw).hexdigest())


def _with_halves(raw: bytes) -> list[str] | None:
    """A list of strings with halves of surrogate pairs, which msgspec refuses and tokenizers replace; None: no list."""
    try:
        texts = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return texts if isinstance(texts, list) and all(isinstance(text, str) for text in texts) else None


def _of_file(path: Path, count: int, each: Callable[[], Iterator[str]], digest: str) -> Texts:
    if not count:
        raise UserError(f"{path}: holds no text")
    before = path.stat()

    def check() -> None:
        after = path.stat()
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise UserError(f"{path}: changed since it was read; run again when it is written")

    source = Source(
        path=str(path), sha256=digest, size_bytes=before.st_size, rows=count, layout="texts", format=path.suffix[1:]
    )
    return Texts("texts", count, each, _none(count), {"of": "texts", "files": [digest]}, (source,), check=check)


def _none(count: int) -> np.ndarray:
    return np.zeros(count, bool)
