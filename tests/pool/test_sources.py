"""What a path may be: a file, a folder, a glob, a list, a data set."""

import builtins
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mig_jax.core.errors import UserError
from mig_jax.pool import load_pool, tabular
from mig_jax.pool.sources import resolve


def row(name: str) -> bytes:
    return b'{"messages": [{"role": "user", "content": "%s"}]}\n' % name.encode()


@pytest.fixture
def folder(tmp_path):
    for name in ("b.jsonl", "a.ndjson", "sub/c.jsonl", "a[1].jsonl", ".hidden/d.jsonl", "README.md", "x.gz"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(row(name))
    return tmp_path


def names(path) -> list[str]:
    return [source.path.rpartition("/")[2] for source in resolve(path)]


def test_what_a_path_names(folder):
    assert names(folder) == ["a.ndjson", "a[1].jsonl", "b.jsonl", "c.jsonl"]
    assert names(str(folder / "*.jsonl")) == ["a[1].jsonl", "b.jsonl"]
    assert names(str(folder / "**" / "*.jsonl")) == ["a[1].jsonl", "b.jsonl", "c.jsonl"]
    # A file of that very name wins over the glob it would be.
    assert names(folder / "a[1].jsonl") == ["a[1].jsonl"]
    assert names([folder / "sub", str(folder / "b.jsonl")]) == ["c.jsonl", "b.jsonl"]


@pytest.fixture
def annotated(folder):
    """What mig-jax annotate writes, in a folder of other pools."""
    made = folder / "made"
    for name in ("pool.jsonl", "refused.jsonl", "rejects.jsonl", "more/part.jsonl"):
        (made / name).parent.mkdir(exist_ok=True)
        (made / name).write_bytes(row(f"made/{name}"))
    (made / "manifest.json").write_text(json.dumps({"schema": 1, "kind": "annotate", "n": 1}))
    return made


def test_of_an_annotated_folder_its_pool_alone(folder, annotated):
    assert names(annotated) == ["pool.jsonl"]
    assert [d[0][1] for d in load_pool(annotated).dialogs([0])] == ["made/pool.jsonl"]
    assert names(folder) == ["a.ndjson", "a[1].jsonl", "b.jsonl", "pool.jsonl", "c.jsonl"]
    assert names(annotated / "refused.jsonl") == ["refused.jsonl"], "what is named is read"
    (annotated / "pool.jsonl").unlink()
    with pytest.raises(UserError, match=r"made: its manifest\.json is one of mig-jax annotate, but its pool\.jsonl is"):
        load_pool(annotated)


@pytest.mark.parametrize(
    "text",
    [b'{"kind": "embed"}', b'["annotate"]', b'{"kind": "annotate"', b"", b"\xff", b"[" * 100_000, b'{"kind": []}'],
)
def test_another_manifest_makes_no_annotated_folder(annotated, text):
    (annotated / "manifest.json").write_bytes(text)
    assert names(annotated) == ["manifest.json", "part.jsonl", "pool.jsonl", "refused.jsonl", "rejects.jsonl"]


def test_a_manifest_is_not_looked_for_in_what_is_large(annotated, monkeypatch):
    monkeypatch.setattr("mig_jax.pool.sources._LARGEST_MANIFEST", 10)
    assert "manifest.json" in names(annotated)


def test_rows_follow_the_order_of_the_list(folder):
    pool = load_pool([folder / "sub", folder / "b.jsonl", folder / "a.ndjson"])
    assert [d[0][1] for d in pool.dialogs([2, 0, 1])] == ["a.ndjson", "sub/c.jsonl", "b.jsonl"]
    assert pool.where(1) == f"{folder}/b.jsonl:1"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("b.json", r"b\.json: no such file or folder; similar names: .*b\.jsonl"),
        ("nowhere/b.jsonl", "no such file, and no folder"),
        ("*.parquet", r"\*\.parquet matches no file"),
        ("*.md", r"matches 1 files, none of them \.jsonl"),
        ("README.md", r"unknown suffix; known: \.jsonl, .*\.parquet .*\.gz"),
        ("x.gz", "unknown suffix"),
        ("empty", r"no pool file in this folder \(found: notes\.txt\)"),
    ],
)
def test_what_is_not_there(folder, path, message):
    (folder / "empty").mkdir()
    (folder / "empty" / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=message):
        load_pool(folder / path)


def test_lists_are_checked(folder):
    with pytest.raises(UserError, match="an empty list"):
        load_pool([])
    with pytest.raises(UserError, match="an empty name"):
        load_pool("")
    with pytest.raises(UserError, match=r"b\.jsonl is given twice"):
        load_pool([folder, folder / "sub" / ".." / "b.jsonl"])


def test_a_progress_is_told_all_bytes(folder):
    seen = []
    load_pool([folder / "b.jsonl", folder / "a.ndjson"], progress=lambda *event: seen.append(event), block_bytes=10)
    total = (folder / "b.jsonl").stat().st_size + (folder / "a.ndjson").stat().st_size
    assert seen[-1] == ("read pool", total, total, "bytes")
    assert len(seen) > 5


def test_a_parquet_file_is_read_back_by_record(tmp_path):
    rows = [{"messages": [{"role": "user", "content": f"é{i}" * i}], "n": i} for i in range(3000)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=1400)
    pool = load_pool(tmp_path / "a.parquet", columns=["n"])
    order = [2999, 0, 1399, 1400, 1023, 1024, 5, 5]
    assert [json.loads(raw) for raw in pool.read_rows(order)] == [rows[i] for i in order]
    assert pool.columns["n"].tolist() == list(range(3000))


# datasets and the libraries under it are not ours to keep free of warnings.
quiet = pytest.mark.filterwarnings("ignore")


@quiet
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_hf_of_a_local_folder(tmp_path, monkeypatch, kind):
    datasets = pytest.importorskip("datasets", reason="the hub extra is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    data = tmp_path / "data"
    data.mkdir()
    rows = [{"messages": [{"role": "user", "content": f"é{i}"}], "n": i} for i in range(2100)]
    if kind == "jsonl":
        (data / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        (data / "test.jsonl").write_text(json.dumps(rows[7]) + "\n")
    else:
        pq.write_table(pa.Table.from_pylist(rows), data / "train.parquet")
        pq.write_table(pa.Table.from_pylist(rows[7:8]), data / "test.parquet")
    pool = load_pool(f"hf:{data}", columns=["n"], cache_dir=tmp_path / "cache")
    assert pool.columns["n"].tolist() == list(range(2100))
    assert pool.sources[0].path == f"hf:{data}"
    assert [json.loads(raw) for raw in pool.read_rows([2099, 3, 1024])] == [rows[2099], rows[3], rows[1024]]
    pool.check_unchanged()
    monkeypatch.setattr("mig_jax.pool.load._read", None)
    again = load_pool(f"hf:{data}", columns=["n"], cache_dir=tmp_path / "cache")
    assert again.crc.tolist() == pool.crc.tolist()
    monkeypatch.undo()
    assert load_pool(f"hf:{data}:test", columns=["n"]).columns["n"].tolist() == [7]
    with pytest.raises(UserError, match=r"cannot be loaded by datasets \(split 'nosplit'\)"):
        load_pool(f"hf:{data}:nosplit")


@quiet
def test_hf_without_a_hub(monkeypatch):
    datasets = pytest.importorskip("datasets", reason="the hub extra is not installed")

    def unreachable(name, split):
        raise ConnectionError(f"Couldn't reach {name}\nand much more")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(
        UserError, match=r"hf:org/name:test: cannot be loaded .*split 'test'.*Couldn't reach org/name\. Write"
    ):
        load_pool("hf:org/name:test")
    with pytest.raises(UserError, match="needs a data set"):
        load_pool("hf:")


def test_hf_without_datasets(monkeypatch):
    real = builtins.__import__

    def no_datasets(name, *rest):
        if name == "datasets":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_datasets)
    with pytest.raises(UserError, match=r"requires the package `datasets`; install mig_jax\[hub\]"):
        tabular.load_hf("hf:org/name")
