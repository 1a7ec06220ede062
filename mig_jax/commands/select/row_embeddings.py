"""Embeddings of the pool's rows for a sampler: a stored array, or what ``mig-jax embed`` makes, kept in the cache."""

import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

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


def row_embeddings(config: SelectConfig, pool: Pool, progress: Progress, tell: Callable[[str], None]) -> RowEmbeddings:
    """What ``embeddings.path`` names; without it the rows are embedded by ``embedder``, resumably.

    Raises:
      UserError: no such file, not an array of one vector a row, or the embeddings of another pool.
    """
    asked = config.embeddings.path
    if asked is not None:
        path = Path(asked).expanduser()
        return processes.together(lambda: _stored(path, f"embeddings.path={asked}", pool))
    if jax.process_count() > 1:
        raise UserError(
            f"sampler={config.sampler.name} compares rows: with several processes embeddings.path must be given;"
            " mig-jax embed makes it, on as many"
        )
    if config.cache is None:
        with tempfile.TemporaryDirectory() as folder:
            made = _embedded(config, pool, Path(folder) / "rows", progress, tell)
            return made._replace(array=np.array(made.array))  # the file goes
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
        return _embedded(config, pool, cache / "row_embeddings" / name, progress, tell)


def checked(array: np.ndarray, told: str, pool: Pool) -> np.ndarray:
    """Raises UserError where it is not one vector a row of the pool."""
    if not isinstance(array, np.ndarray):
        raise UserError(f"{told}: must be a numpy array, float [rows, d]; it is a {type(array).__name__}")
    if array.ndim != 2 or array.dtype.kind != "f" or not array.shape[1]:
        raise UserError(
            f"{told}: must be float [rows, d], one vector a row of the pool; it is {array.dtype} {array.shape}"
        )
    if len(array) != len(pool):
        raise UserError(
            f"{told}: holds {len(array):,} vectors, and the pool has {len(pool):,} rows; it must be one each"
        )
    return array


def vectors_of(array: np.ndarray, pool: Pool, encoded: Encoded, progress: Progress) -> Vectors:
    """The points' vectors.

    Raises:
      UserError: a vector that holds NaN or infinity; names its row.
    """
    vectors = Vectors(array, as_pool_rows(encoded.row))
    wrong = np.flatnonzero(vectors.not_finite(progress))
    if len(wrong):
        raise UserError(
            f"{pool.where(int(encoded.row[wrong[0]]))}: its embedding is not finite ({len(wrong)} of {len(encoded)} are"
            " not); embed these rows again"
        )
    return vectors


def _stored(path: Path, told: str, pool: Pool) -> RowEmbeddings:
    folder = path if path.is_dir() else path.parent
    file = path / EMBEDDINGS if path.is_dir() else path
    if not file.exists():
        raise UserError(f"{told}: {'holds no ' + EMBEDDINGS if path.is_dir() else 'no such file'}")
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise UserError(f"{told}: not a .npy array of numbers") from None
    checked(array, told, pool)
    sha256 = None
    if file.name == EMBEDDINGS and (folder / "manifest.json").exists():
        manifest = read_manifest(folder, EmbedManifest)
        files = [source.sha256 for source in manifest.inputs]
        if manifest.target == "rows" and files != [source.sha256 for source in pool.sources]:
            raise UserError(f"{told}: embeddings of other files than the pool's (its manifest has their sha256)")
        facts = manifest.files.get(EMBEDDINGS)
        sha256 = None if facts is None else facts.sha256
    return RowEmbeddings(array, sha256 or file_facts(file).sha256)


def _embedded(
    config: SelectConfig, pool: Pool, out: Path, progress: Progress, tell: Callable[[str], None]
) -> RowEmbeddings:
    from mig_jax.commands.embed.run import run_embed  # Flax

    asked = EmbedConfig(
        pool=config.pool,
        embedder=config.embedder,
        out=str(out),
        overwrite=False,
        embed=part("embed", "embed", EmbedOptions),
        mesh=config.mesh,
        cache=config.cache,
    )

    run_embed(asked, "mig-jax select", pool=pool, progress=progress, notify=tell)
    sha256 = read_manifest(out, EmbedManifest).files[EMBEDDINGS].sha256
    return RowEmbeddings(np.load(out / EMBEDDINGS, mmap_mode="r", allow_pickle=False), sha256)
