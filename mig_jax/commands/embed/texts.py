"""What is embedded: the rows of a pool, its labels, or the texts of a plain file; one by one, never all in memory."""

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
from mig_jax.core.errors import UserError
from mig_jax.core.progress import Progress, silent
from mig_jax.labels.valid_tags import labels_of, read_valid_tags
from mig_jax.pool import Pool
from mig_jax.pool.configured import pool_of

BETWEEN = "\n\n"  # the turns of a row
_BOM = b"\xef\xbb\xbf"
_PEEK = 1 << 16


@dataclass(frozen=True)
class Texts:
    """N texts.

    Args:
      of: "rows", "labels" or "texts".
      count: N.
      each: gives them, in order, anew at each call.
      without: those that are no text: rows without a dialog; bool ``[N]``.
      decides: what they depend on, plain: contents by their hashes.
      names: the labels; None for rows and texts.
      check: raises UserError where a file has changed since.
    """

    of: str
    count: int
    each: Callable[[], Iterator[str]]
    without: Bool[np.ndarray, " N"]
    decides: dict[str, Any]
    names: tuple[str, ...] | None = None
    check: Callable[[], None] = lambda: None


def texts_of(config: EmbedConfig, cache: Path | None, progress: Progress = silent, pool: Pool | None = None) -> Texts:
    """The texts that the configuration names.

    Args:
      cache: where pools are kept.
      pool: the pool of ``config.pool``, where the caller has read it already.

    Raises:
      UserError: as ``load_pool``; also a file without a text, labels asked of a file of texts, no label.
    """
    file = _plain_file(config) if pool is None else None
    if file is not None:
        if config.embed.target == "labels":
            raise UserError(f"embed.target=labels: {file} holds texts; labels are the tags of a pool")
        return _lines(file) if file.suffix == ".txt" else _list(file)
    pool = pool_of(config.pool, (), cache, progress) if pool is None else pool
    return _labels(pool, config) if config.embed.target == "labels" else _rows(pool, config)


def _rows(pool: Pool, config: EmbedConfig) -> Texts:
    """One text a row: the contents of its turns, a blank line between them."""
    settings = {"layout": config.pool.layout, "fields": config.pool.fields}
    decides = {"of": "rows", "files": [source.sha256 for source in pool.sources], **settings}

    def each() -> Iterator[str]:
        for turns in pool.each_dialog(np.arange(len(pool))):
            yield BETWEEN.join(content for _, content in turns)

    return Texts("rows", len(pool), each, pool.status != 0, decides, check=pool.check_unchanged)


def _labels(pool: Pool, config: EmbedConfig) -> Texts:
    """The distinct labels of the tags, sorted; tags outside pool.valid_tags do not count."""
    valid = None if config.pool.valid_tags is None else read_valid_tags(config.pool.valid_tags)
    names = tuple(sorted({name for name in labels_of(pool.tag_names, valid) if name is not None}))
    if not names:
        raise UserError(
            f"embed.target=labels: none of the pool's {len(pool.tag_names)} distinct tags counts as a label; do "
            "pool.valid_tags and the pool belong together, and pool.fields.tags and its rows?"
        )
    digest = hashlib.sha256("\0".join(names).encode("utf-8", "surrogatepass")).hexdigest()
    return Texts("labels", len(names), lambda: iter(names), _none(len(names)), {"of": "labels", "names": digest}, names)


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
        now = path.stat()
        if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise UserError(f"{path}: changed since it was read; run again when it is written")

    return Texts("texts", count, each, _none(count), {"of": "texts", "files": [digest]}, check=check)


def _none(count: int) -> np.ndarray:
    return np.zeros(count, bool)
