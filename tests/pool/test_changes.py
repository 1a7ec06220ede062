"""A file that changes under the run is noticed: while it is read, and when rows are read back."""

import gzip
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mig_jax.core.errors import UserError
from mig_jax.pool import load_pool

LINES = [b'{"messages": [{"role": "user", "content": "row %03d"}]}' % i for i in range(200)]
TEXT = b"\n".join(LINES) + b"\n"


def once(change):
    """A progress that makes the change at its first call."""
    todo = [change]

    def progress(*_):
        if todo:
            todo.pop()()

    return progress


@pytest.mark.parametrize("change", ["grows", "is replaced", "is cut", "is touched", "is gone"])
def test_a_change_while_it_is_read(tmp_path, change):
    path = tmp_path / "a.jsonl"
    path.write_bytes(TEXT)

    def act():
        if change == "grows":
            with path.open("ab") as file:
                file.write(LINES[0])
        elif change == "is replaced":
            other = tmp_path / "other"
            other.write_bytes(TEXT)
            os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
            other.replace(path)
        elif change == "is cut":
            os.truncate(path, len(LINES[0]) * 20 + 20)
        elif change == "is touched":
            os.utime(path, ns=(1, 1))
        else:
            path.unlink()

    with pytest.raises(UserError, match=r"a\.jsonl: (changed while it was read|cannot be read)"):
        load_pool(path, progress=once(act), block_bytes=100)


def test_a_parquet_file_changes_while_it_is_read(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([{"instruction": "x", "output": "y"}] * 10), path)
    content = path.read_bytes()

    def act():
        path.unlink()
        path.write_bytes(content)

    with pytest.raises(UserError, match=r"a\.parquet: changed while it was read"):
        load_pool(path, progress=once(act))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz", "a.parquet"])
def test_a_change_after_it_was_read(tmp_path, name):
    path = tmp_path / name

    def write(lines):
        if name == "a.parquet":
            pq.write_table(pa.Table.from_pylist([{"instruction": line.decode(), "output": ""} for line in lines]), path)
        elif name == "a.json":
            path.write_bytes(b"[" + b",\n".join(lines) + b"]")
        else:
            path.write_bytes(gzip.compress(b"\n".join(lines)) if name.endswith("gz") else b"\n".join(lines))

    write(LINES)
    pool = load_pool(path)
    pool.check_unchanged()
    want = list(pool.read_rows([3, 150]))
    write([*LINES[:150], LINES[150].replace(b"row", b"raw"), *LINES[151:]])
    rows = pool.read_rows([3, 150, 4])
    assert next(rows) == want[0]
    with pytest.raises(UserError, match=rf"{name}:151: the file changed while the run read it"):
        next(rows)
    write(LINES[:100])
    with pytest.raises(UserError, match=rf"{name}: changed since it was read"):
        pool.check_unchanged()
    with pytest.raises(UserError, match=rf"{name}:200: the file changed"):
        list(pool.read_rows([199]))
    path.unlink()
    with pytest.raises(UserError, match=rf"{name}.*(cannot be read|not a readable)"):
        list(pool.read_rows([3]))
    with pytest.raises(UserError, match=rf"{name}: cannot be read"):
        pool.check_unchanged()


def test_rows_that_are_not_there(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(TEXT)
    pool = load_pool(path)
    for rows in ([200], [-1], [0, 500]):
        # At once, not when the first row is taken.
        with pytest.raises(IndexError, match=r"0 \.\. 199"):
            pool.read_rows(rows)
    assert list(pool.read_rows([])) == []


def descriptors() -> int:
    """How many files this process has open, where the system tells."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def test_more_files_than_are_kept_open(tmp_path):
    for i, line in enumerate(LINES):
        (tmp_path / f"{i:03d}.jsonl").write_bytes(line)
    pool = load_pool(tmp_path)
    before = descriptors()
    order = [*range(199, -1, -1), *range(0, 200, 7)]
    assert list(pool.read_rows(order)) == [LINES[i] for i in order]
    assert descriptors() == before
