"""A pool from the cache is the pool; a damaged entry is made anew; writers do not meet."""

import json
import multiprocessing
import os
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from mig_jax.core.errors import UserError
from mig_jax.pool import Pool, load
from mig_jax.pool.load import load_pool

COLUMNS = ["n"]


@pytest.fixture
def pool_file(tmp_path):
    def one(i):
        deita = {"quality_scores": [i, 2], "complexity_scores": None if i % 5 else [1]}
        annotation = {"instag": {"content": ["a", f"é{i % 3}"]}, "deita": deita}
        return {
            "messages": [{"role": "user", "content": "x"}],
            "_id": i,
            "source": "s",
            "n": i,
            "annotation": annotation,
        }

    lines = [json.dumps(one(i)) for i in range(600)]
    lines[4] = '{"broken'
    path = tmp_path / "pool.jsonl"
    path.write_text("\n".join(lines))
    return path


def same(a: Pool, b: Pool) -> None:
    for field in fields(Pool):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, np.ndarray):
            assert x.dtype == y.dtype, field.name
            assert not y.flags.writeable
            np.testing.assert_array_equal(x, y, err_msg=field.name)
        elif field.name.startswith("columns"):
            assert list(x) == list(y)
            for name in x:
                np.testing.assert_array_equal(x[name], y[name])
        else:
            assert x == y, field.name


class Reads:
    """Counts how often a source is parsed."""

    def __init__(self, monkeypatch):
        self.count, real = 0, load._read

        def counted(*args):
            self.count += 1
            return real(*args)

        monkeypatch.setattr(load, "_read", counted)


@pytest.fixture
def reads(monkeypatch):
    return Reads(monkeypatch)


def get(path, cache, **how) -> Pool:
    return load_pool(path, **{"columns": COLUMNS, "on_error": "skip", "cache_dir": cache, **how})


def test_a_hit_equals_the_cold_pool(pool_file, tmp_path, reads):
    cold = get(pool_file, None)
    first = get(pool_file, tmp_path / "cache")
    assert reads.count == 2
    hit = get(pool_file, tmp_path / "cache")
    assert reads.count == 2
    same(cold, first)
    same(cold, hit)
    assert list(hit.read_rows([599, 4])) == list(cold.read_rows([599, 4]))
    assert hit.id(7) == "7"


def test_an_entry_serves_the_same_content_elsewhere(pool_file, tmp_path, reads):
    cold = get(pool_file, tmp_path / "cache")
    moved = pool_file.rename(tmp_path / "moved.jsonl")
    os.utime(moved, ns=(1, 12345))
    hit = get(moved, tmp_path / "cache")
    assert reads.count == 1
    assert hit.sources == (replace(cold.sources[0], path=str(moved), mtime_ns=12345),)
    assert hit.rejects[0].file == str(moved)
    hit.check_unchanged()


def test_anything_that_matters_misses(pool_file, tmp_path, reads):
    cache = tmp_path / "cache"
    get(pool_file, cache)
    for how in ({"layout": "openai"}, {"fields": {"tags": "n"}}, {"columns": []}):
        get(pool_file, cache, **how)
    assert reads.count == 4
    # Of the same size, so that only the content tells.
    content = pool_file.read_bytes()
    pool_file.write_bytes(content.replace(b'"n": 12,', b'"n": 13,'))
    assert get(pool_file, cache).columns["n"][12] == 13
    assert reads.count == 5
    with pytest.raises(UserError, match=r"pool\.jsonl:5"):
        get(pool_file, cache, on_error="raise")
    pool_file.write_bytes(content)
    assert get(pool_file, cache).columns["n"][12] == 12
    assert reads.count == 6


@pytest.mark.parametrize("damage", ["no meta", "half a meta", "other meta", "no array", "cut", "flip", "empty"])
def test_a_damaged_entry_is_made_anew(pool_file, tmp_path, reads, damage):
    cache = tmp_path / "cache"
    cold = get(pool_file, cache)
    (entry,) = cache.iterdir()
    array, meta = entry / "crc.npy", entry / "meta.json"
    content = bytearray(array.read_bytes())
    if damage == "no meta":
        meta.unlink()
    elif damage == "half a meta":
        meta.write_bytes(meta.read_bytes()[:100])
    elif damage == "other meta":
        meta.write_text("[]")
    elif damage == "no array":
        array.unlink()
    elif damage == "cut":
        array.write_bytes(content[:-100])
    elif damage == "flip":
        content[-1] ^= 1
        array.write_bytes(content)
    else:
        for file in entry.iterdir():
            file.unlink()
    same(cold, get(pool_file, cache))
    assert reads.count == 2
    same(cold, get(pool_file, cache))
    assert reads.count == 2
    assert [p.name for p in cache.iterdir()] == [entry.name]


def _build(path: str, cache: str, barrier, out) -> None:
    barrier.wait()
    for _ in range(5):
        for entry in Path(cache).glob("*-*"):
            # Damage that both find and repair at once.
            (entry / "crc.npy").unlink(missing_ok=True)
        pool = get(path, cache)
        out.put((len(pool), int(pool.crc.astype(np.int64).sum())))


def test_two_processes_build_the_same_entry(pool_file, tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, out, cache = context.Barrier(2), context.Queue(), tmp_path / "cache"
    workers = [context.Process(target=_build, args=(str(pool_file), str(cache), barrier, out)) for _ in range(2)]
    for worker in workers:
        worker.start()
    results = {out.get(timeout=60) for _ in range(10)}
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert results == {(600, int(get(pool_file, None).crc.astype(np.int64).sum()))}
    assert [p.name for p in cache.glob(".*")] == []
    same(get(pool_file, None), get(pool_file, cache))


def test_a_folder_that_cannot_be_made(pool_file):
    with pytest.raises(UserError, match="cache folder"):
        get(pool_file, pool_file / "cache")


def test_a_failing_write_costs_a_warning(pool_file, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.warns(RuntimeWarning, match="was not cached .* No space left"):
        pool = get(pool_file, tmp_path / "cache")
    assert len(pool) == 600
    assert list((tmp_path / "cache").iterdir()) == []
