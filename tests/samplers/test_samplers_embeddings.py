"""Where a sampler's row embeddings come from: a stored array, a folder of mig-jax embed, or the embedder itself."""

import json

import msgspec
import numpy as np
import pytest
from omegaconf import OmegaConf

from mig_jax.commands.registry import COMMANDS
from mig_jax.commands.select.row_embeddings import row_embeddings, vectors_of
from mig_jax.config.compose import composed
from mig_jax.core.errors import UserError
from mig_jax.encode import encode
from mig_jax.pool import load_pool
from mig_jax.runs.manifest import EmbedManifest, read_manifest, sources_of
from mig_jax.runs.run import Run
from mig_jax.vectors.vectors import Vectors


def config(path=None, **more):
    """The least that row_embeddings reads."""
    plain = OmegaConf.to_container(
        composed("select", ["embedder=bert", "embedder.path=null", "sampler=random", "n=1"]), resolve=True
    )
    plain = {**plain, "embeddings": {"path": None if path is None else str(path)}, "out": "out"}
    return COMMANDS["select"].check(plain | more)


@pytest.fixture
def pool(tmp_path):
    rows = [
        {"instruction": f"do {at}", "output": "x", "score": float(at), "annotation": {"instag": {"content": ["a"]}}}
        for at in range(4)
    ]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_pool(tmp_path / "pool.jsonl", columns=["score"])


def silent(*_):
    pass


def test_a_stored_array(pool, tmp_path):
    array = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.save(tmp_path / "rows.npy", array)
    found = row_embeddings(config(tmp_path / "rows.npy"), pool, silent, silent)
    np.testing.assert_array_equal(found.array, array)
    np.save(tmp_path / "more.npy", array + 1)
    assert row_embeddings(config(tmp_path / "more.npy"), pool, silent, silent).sha256 != found.sha256
    vectors = vectors_of(found.array, pool, encode(pool, score="score"), silent)
    np.testing.assert_allclose(np.linalg.norm(vectors.take(np.arange(4)), axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros((3, 2), np.float32), "holds 3 vectors, and the pool has 4 rows"),
        (np.zeros(4, np.float32), r"must be float \[rows, d\].*float32 \(4,\)"),
        (np.zeros((4, 2), np.int64), r"it is int64 \(4, 2\)"),
        (np.zeros((4, 0), np.float32), r"it is float32 \(4, 0\)"),
    ],
)
def test_arrays_that_do_not_fit(pool, tmp_path, array, told):
    np.save(tmp_path / "rows.npy", array)
    with pytest.raises(UserError, match=told):
        row_embeddings(config(tmp_path / "rows.npy"), pool, silent, silent)


def test_files_that_are_none(pool, tmp_path):
    with pytest.raises(UserError, match="no such file"):
        row_embeddings(config(tmp_path / "rows.npy"), pool, silent, silent)
    with pytest.raises(UserError, match=r"holds no embeddings\.npy"):
        row_embeddings(config(tmp_path), pool, silent, silent)
    (tmp_path / "rows.npy").write_bytes(b"no array")
    with pytest.raises(UserError, match=r"not a \.npy array"):
        row_embeddings(config(tmp_path / "rows.npy"), pool, silent, silent)


def embedded(folder, sources):
    """The folder of a finished ``mig-jax embed``."""
    with Run(folder, "mig-jax embed pool.jsonl", {}) as run:
        run.claim("a" * 64)
        np.save(run.files / "embeddings.npy", np.ones((4, 2), np.float32))
        numbers = {"without_text": 0, "without_tokens": 0, "max_length": 8, "tokens": 4, "cut": 0, "computed": 4}
        run.write_manifest(
            EmbedManifest,
            inputs=sources,
            target="rows",
            n=4,
            dim=2,
            dtype="float32",
            embedder="e",
            pooling="mean",
            append_eos=False,
            batches=1,
            batch_tokens=8,
            tokens_per_s=None,
            **numbers,
        )
        run.publish()
    return folder


def test_embeddings_of_another_pool_are_refused_by_their_manifest(pool, tmp_path):
    sources = sources_of(pool)
    folder = embedded(tmp_path / "same", sources)
    digest = read_manifest(folder).files["embeddings.npy"].sha256
    assert row_embeddings(config(folder), pool, silent, silent).sha256 == digest
    other = embedded(tmp_path / "other", tuple(msgspec.structs.replace(one, sha256="another") for one in sources))
    with pytest.raises(UserError, match="embeddings of other files than the pool's"):
        row_embeddings(config(other), pool, silent, silent)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e39])
def test_an_embedding_that_is_not_finite_names_its_row(pool, wrong):
    array = np.ones((4, 3))
    array[2, 1] = wrong
    with pytest.raises(UserError, match=r"pool.jsonl:3: its embedding is not finite \(1 of 4 are not\)"):
        vectors_of(array, pool, encode(pool, score="score"), silent)


def test_unit_vectors():
    array = np.array([[3.0, 4.0], [0.0, 0.0], [1e-30, 0.0], [1e30, 1e30]], np.float32)
    vectors = Vectors(array, np.array([3, 1, 0]))
    found = vectors.take(np.array([2, 1, 0]))
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0], [0.5**0.5, 0.5**0.5]], rtol=1e-6)
    np.testing.assert_array_equal(np.concatenate([block for _, block in vectors.blocks(2)]), found[::-1])
    assert (len(vectors), vectors.dim) == (3, 2)
