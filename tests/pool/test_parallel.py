"""A pool is the same however many processes parse it, and a mistake is told in the same words."""

import gzip
import json
import os

import pytest
import zstandard
from test_cache import same

from mig_jax.core.errors import UserError
from mig_jax.pool import load_pool, parallel
from mig_jax.pool.builder import Builder


def line(i: int) -> bytes:
    annotation = {
        "instag": {"content": [f"tag {i * 7 % 23}", "é" * (i % 3)][: i % 4]},
        "deita": {"quality_scores": [i, 2.5], "complexity_scores": 3 if i % 5 else None},
    }
    record = {
        "dialogs": [{"role": "user", "content": f"Question {i} €"}, {"role": "assistant", "content": "x" * (i % 50)}],
        "source": [None, "a", ["b"], f"s{i % 9}"][i % 4],
        "_id": f"id {i}" if i % 3 else i,
        "annotation": annotation,
        "n": i if i % 6 else "?",
    }
    return json.dumps(record, ensure_ascii=i % 2 == 0).encode()


LINES = [line(i) for i in range(400)]
HOSTILE = list(LINES)
HOSTILE[3] = b""
HOSTILE[7] = b" \t"
HOSTILE[50] += b"\r"
HOSTILE[60] = b'{"dialogs": [], "x": "\xff"}'
HOSTILE[61] = b'{"broken'
HOSTILE[120] = b"[1]"
HOSTILE[121:121] = [b"", b"", b""]
HOSTILE[300] = b'{"dialogs": []}'
TEXT = b"\xef\xbb\xbf" + b"\n".join(HOSTILE)


@pytest.fixture(autouse=True)
def short_spans(monkeypatch):
    """Many tasks of a few lines, and lines longer than a span."""
    monkeypatch.setattr("mig_jax.pool.stream.SPAN_BYTES", 700)
    monkeypatch.setattr("mig_jax.pool.stream.COMPRESSED_BYTES", 512)


def get(path, workers, **how):
    return load_pool(path, **{"columns": ["n", "annotation.x"], "on_error": "skip", "workers": workers, **how})


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n \n"])
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_the_same_pool_for_any_number_of_processes(tmp_path, suffix, end):
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}[suffix]
    (tmp_path / f"a.jsonl{suffix}").write_bytes(pack(TEXT + end))
    (tmp_path / f"b.jsonl{suffix}").write_bytes(pack(b"\n".join(LINES[:30]) + end))
    alone = get(tmp_path, 0)
    assert len(alone.rejects) == 4
    for workers in (1, 3):
        many = get(tmp_path, workers)
        same(alone, many)
    assert list(many.read_rows([0, 399, 57])) == list(alone.read_rows([0, 399, 57]))


def test_the_other_processes_did_it(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(LINES))
    alone = get(path, 0)
    monkeypatch.setattr(Builder, "add", None)
    same(alone, get(path, 2))


@pytest.mark.parametrize("at", [2, 333])
@pytest.mark.parametrize("bad", [b'{"broken', b"[1]", b'{"dialogs": "\xff"}'])
def test_a_mistake_is_told_with_its_line(tmp_path, at, bad):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([*LINES[:at], b"", bad, b"{", *LINES[at:]]))
    told = []
    for workers in (0, 2):
        with pytest.raises(UserError, match=rf"a\.jsonl:{at + 2}: ") as error:
            get(path, workers, on_error="raise")
        told.append(str(error.value))
    assert told[0] == told[1]


@pytest.mark.parametrize("head", [b"\n\n", b"{\n[]\n", b""])
def test_a_file_that_shows_no_layout_at_once(tmp_path, head):
    path = tmp_path / "a.jsonl"
    path.write_bytes(head + b"\n".join(LINES))
    for block_bytes in (3, 1 << 18):
        same(get(path, 0, block_bytes=block_bytes), get(path, 2, block_bytes=block_bytes))


def test_processes_that_die_cost_time_only(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    path.write_bytes(TEXT)
    start = parallel.Parsers._start

    def start_and_kill(self):
        start(self)
        for process in self._all:
            process.kill()
            process.wait()

    monkeypatch.setattr(parallel.Parsers, "_start", start_and_kill)
    same(get(path, 0), get(path, 2))


def test_a_change_while_others_parse(tmp_path, monkeypatch):
    """After the hash was taken, before the last rows were parsed."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(LINES))
    real = Builder.join

    def join(self, *args):
        os.utime(path, ns=(1, 1))
        real(self, *args)

    monkeypatch.setattr(Builder, "join", join)
    with pytest.raises(UserError, match=r"a\.jsonl: changed while it was read"):
        get(path, 2)


def test_small_pools_start_no_process():
    assert parallel.workers_for(parallel.MIN_BYTES - 1) == 0
    assert parallel.workers_for(10**12) <= parallel.MAX_WORKERS
