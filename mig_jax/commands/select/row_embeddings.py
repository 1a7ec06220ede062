"""Embeddings of the pool's rows for a sampler: a stored array, or that of ``mig-jax embed`` in the cache."""

import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mig_jax.commands.embed.config import EmbedConfig, EmbedOptions
from mig_jax.commands.select.config import SelectConfig
from mig_jax.config.check import part
from mig_jax.config.struct import key_of
from mig_jax.core import processes
from mig_jax.core.cache import one_at_a_time
from mig_jax.core.errors import UserError
from mig_jax.core.index import as_pool_rows
from mig_jax.core.progress import Progress
from mig_jax.core.version import VERSION
from mig_jax.encode import Encoded
from mig_jax.models.configured import spec_of
from mig_jax.models.inference.fingerprint import check_embedder
from mig_jax.pool import Pool
from mig_jax.runs.manifest import EmbedManifest, file_facts, read_manifest
from mig_jax.vectors.vectors import Vectors

EMBEDDINGS = "embeddings.npy"


class RowEmbeddings(NamedTuple):
    """One vector a row of the pool, and the sha256 of the file they came from."""

    array: np.ndarray
    sha256: str


def row_embeddings(
    config: SelectConfig, pool: Pool, progress: Progress, notify: Callable[[str], None]
) -> RowEmbeddings:
    """The array of ``embeddings.path``; without it the rows are embedded by ``embedder``, resumably.

    Raises:
      UserError: no such file, not an array of one vector a row, or the embeddings of another pool.
    """
    stored = config.embeddings.path
    if stored is not None:
        return processes.together(lambda: _stored(stored, pool))
    if jax.process_count() > 1:
        message = "compares rows: with several processes it needs embeddings.path; mig-jax embed makes it, on as many"
        raise UserError(message, key="sampler", value=config.sampler.name)
    if config.cache is None:
        with tempfile.TemporaryDirectory() as folder:
            made = _embedded(config, pool, Path(folder) / "rows", progress, notify)
            return made._replace(array=np.array(made.array))  # before the folder is removed
    decides = {
        "version": VERSION,
        "files": [source.sha256 for source in pool.sources],
        "pool": key_of(config.pool, without=("name",)),
        "embedder": check_embedder(spec_of(config.embedder)).fingerprint,
        "backend": jax.default_backend(),
    }
    name = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    cache = Path(config.cache).expanduser()
    with one_at_a_time(cache, f"row embeddings {name}"):
        return _embedded(config, pool, cache / "row_embeddings" / name, progress, notify)


def checked(array: np.ndarray, key: str, pool: Pool, value: Any = ...) -> np.ndarray:
    """The array; raises UserError about the setting where it is not one vector a row of the pool."""
    if not isinstance(array, np.ndarray):
        allowed = f"a numpy array, float [rows, d]; it is a {type(array).__name__}"
        raise UserError(key=key, value=value, allowed=allowed)
    if array.ndim != 2 or array.dtype.kind != "f" or not array.shape[1]:
        allowed = f"float [rows, d], one vector a row of the pool; it is {array.dtype} {array.shape}"
        raise UserError(key=key, value=value, allowed=allowed)
    if len(array) != len(pool):
        message = f"holds {len(array):,} vectors, and the pool has {len(pool):,} rows; it must be one each"
        raise UserError(message, key=key, value=value)
    return array


def vectors_of(array: np.ndarray, pool: Pool, encoded: Encoded, progress: Progress) -> Vectors:
    """The points' vectors.

    Raises:
      UserError: a vector that holds NaN or infinity; names its row.
    """
    vectors = Vectors(array, as_pool_rows(encoded.row))
    wrong = np.flatnonzero(vectors.not_finite(progress))
    if len(wrong):
        message = f"its embedding is not finite ({len(wrong)} of {len(encoded)} are not); embed these rows again"
        raise UserError(message, where=pool.where(int(encoded.row[wrong[0]])))
    return vectors


def _stored(name: str, pool: Pool) -> RowEmbeddings:
    """The array of a file, or of a folder of ``mig-jax embed``."""
    key, path = "embeddings.path", Path(name).expanduser()
    folder = path if path.is_dir() else path.parent
    file = path / EMBEDDINGS if path.is_dir() else path
    if not file.exists():
        raise UserError(f"holds no {EMBEDDINGS}" if path.is_dir() else "no such file", key=key, value=name)
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise UserError("not a .npy array of numbers", key=key, value=name) from None
    checked(array, key, pool, name)
    sha256 = None
    if file.name == EMBEDDINGS and (folder / "manifest.json").exists():
        manifest = read_manifest(folder, EmbedManifest)
        files = [source.sha256 for source in manifest.inputs]
        if manifest.target == "rows" and files != [source.sha256 for source in pool.sources]:
            message = "embeddings of other files than the pool's (its manifest has their sha256)"
            raise UserError(message, key=key, value=name)
        facts = manifest.files.get(EMBEDDINGS)
        sha256 = None if facts is None else facts.sha256
    return RowEmbeddings(array, sha256 or file_facts(file).sha256)


def _embedded(
    config: SelectConfig, pool: Pool, out: Path, progress: Progress, notify: Callable[[str], None]
) -> RowEmbeddings:
    from mig_jax.commands.embed.run import run_embed  # Flax

    embed = EmbedConfig(
        pool=config.pool,
        embedder=config.embedder,
        out=str(out),
        overwrite=False,
        embed=part("embed", "embed", EmbedOptions),
        mesh=config.mesh,
        cache=config.cache,
    )

    run_embed(embed, "mig-jax select", pool=pool, progress=progress, notify=notify)
    sha256 = read_manifest(out, EmbedManifest).files[EMBEDDINGS].sha256
    return RowEmbeddings(np.load(out / EMBEDDINGS, mmap_mode="r", allow_pickle=False), sha256)
