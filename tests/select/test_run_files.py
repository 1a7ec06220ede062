"""What stands in the folder of a finished run."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from fake_run import FakePool, finished_run, row, run_facts

from mig_jax.commands.select.files import RunnersUp
from mig_jax.core.errors import UserError
from mig_jax.core.json_files import jsonable, write_json
from mig_jax.pool import load_pool
from mig_jax.runs.manifest import MANIFEST, SelectManifest, VocabularyManifest, read_manifest
from mig_jax.samplers.order import Order


def write(folder, **changes):
    facts = run_facts()
    return facts, finished_run(folder, facts, **changes)


def stats_of(folder):
    return json.loads((folder / "pool_stats.json").read_bytes())


def test_every_file_of_the_design(tmp_path):
    facts, _ = write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "selection.jsonl",
        "trace.parquet",
        "runners_up.parquet",
        "pool_stats.json",
        "manifest.json",
        "report.html",
        "dataset_info.json",
    }
    raw = facts.pool.raw
    assert (tmp_path / "selection.jsonl").read_bytes().splitlines() == [raw[at + 2] for at in (7, 0, 11, 3, 5)]


def test_the_same_run_writes_the_same_bytes(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b")
    names = {path.name for path in (tmp_path / "a").iterdir()} - {"manifest.json", "report.html"}
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_trace(tmp_path):
    facts, _ = write(tmp_path)
    rows = pq.read_table(tmp_path / "trace.parquet").to_pylist()
    assert [r["rank"] for r in rows] == [1, 2, 3, 4, 5]
    assert [r["row"] for r in rows] == [9, 2, 13, 5, 7]
    assert [r["gain"] for r in rows] == [9.0, 5.0, 4.0, 2.0, 1.0]
    assert [r["objective"] for r in rows] == [9.0, 14.0, 18.0, 20.0, 21.0]
    assert rows[0]["labels"] == [{"label": "beta", "share": 0.75}, {"label": "alpha", "share": 0.25}]
    assert [r["id"] for r in rows] == [None, "id2", "id13", "id5", "id7"]
    assert [r["source"] for r in rows] == ["a", None, "b", None, "b"]
    assert [r["tokens"] for r in rows] == [None, facts.pool.tokens[2], None, None, None]
    assert rows[1]["score"] == 1.0
    assert {r["reason"] for r in rows} == {"first-order gain"}
    near = pq.read_table(tmp_path / "runners_up.parquet").to_pylist()
    assert [(r["row"], r["gain"]) for r in near] == [(3, 0.9), (4, 0.5)]


def test_why_each_pick_was_taken(tmp_path, monkeypatch):
    why = ("pass 1", "pass 1", "cluster \ud800", "pass 2", "pass 1")
    facts = run_facts()
    monkeypatch.setattr("mig_jax.commands.select.trace.ROW_GROUP", 2)
    write(tmp_path, selection=replace(facts.selection, why=why))
    reason = pq.read_table(tmp_path / "trace.parquet").column("reason")
    assert reason.to_pylist() == ["pass 1", "pass 1", "cluster ?", "pass 2", "pass 1"]
    assert str(reason.type).startswith("dictionary<")
    assert [pick["reason"] for pick in stats_of(tmp_path)["picks"]] == reason.to_pylist()
    with pytest.raises(ValueError, match=r"selection\.why"):
        run_facts(selection=replace(facts.selection, why=("one",)))


def test_trace_keeps_eight_labels_and_goes_without_any(tmp_path):
    many = [(f"l{at}", 1.0 / (at + 1)) for at in range(20)]
    write(tmp_path / "many", labels_earned=[many[::-1]] * 5)
    labels = pq.read_table(tmp_path / "many" / "trace.parquet").column("labels")[0].as_py()
    assert [entry["label"] for entry in labels] == [f"l{at}" for at in range(8)]
    write(tmp_path / "none", labels_earned=(), runners_up=RunnersUp.none())
    assert pq.read_table(tmp_path / "none" / "trace.parquet").column("labels")[0].as_py() == []
    assert pq.read_table(tmp_path / "none" / "runners_up.parquet").num_rows == 0


def test_trace_over_several_row_groups(tmp_path, monkeypatch):
    write(tmp_path / "one")
    monkeypatch.setattr("mig_jax.commands.select.trace.ROW_GROUP", 2)
    write(tmp_path / "many")
    tables = [pq.read_table(tmp_path / name / "trace.parquet") for name in ("one", "many")]
    assert tables[0].equals(tables[1])


def test_budgets_have_a_file_each(tmp_path):
    _, manifest = write(tmp_path, budgets=(2, 5), certificate={})
    both = (tmp_path / "selection_5.jsonl").read_bytes()
    assert both.startswith((tmp_path / "selection_2.jsonl").read_bytes())
    assert not (tmp_path / "selection.jsonl").exists()
    info = json.loads((tmp_path / "dataset_info.json").read_bytes())
    assert {name: entry["file_name"] for name, entry in info.items()} == {
        "run_2": "selection_2.jsonl",
        "run_5": "selection_5.jsonl",
    }
    assert manifest.objective == {2: 14.0, 5: 21.0}


def test_budgets_that_are_no_prefixes(tmp_path):
    facts, manifest = write(tmp_path, budgets=(2, 5), orders={2: np.array([4, 6])}, order_objective={2: 3.5})
    assert (tmp_path / "selection_2.jsonl").read_bytes().splitlines() == [facts.pool.raw[6], facts.pool.raw[8]]
    assert len((tmp_path / "selection_5.jsonl").read_bytes().splitlines()) == 5
    assert manifest.objective == {2: 3.5, 5: 21.0}


def test_filters_that_run_dry(tmp_path):
    _, manifest = write(tmp_path, budgets=(9,), notes=("fewer",))
    assert manifest.n == 5 and manifest.objective == {9: 21.0} and "fewer" in manifest.notes


def test_a_pool_without_labels_knows_no_objective(tmp_path):
    facts = run_facts()
    bare = replace(facts.encoded, labels=(), label_idx=np.zeros(0, np.int32), label_ptr=np.zeros(13, np.int64))
    _, manifest = write(tmp_path, encoded=bare, labels_earned=(), runners_up=RunnersUp.none())
    assert (manifest.labels.total, manifest.labels.covered) == (0, 0)
    assert (manifest.objective, manifest.random_objective, manifest.certificate) == ({5: None}, {}, {})
    assert pq.read_table(tmp_path / "trace.parquet").column("objective").to_pylist() == [None] * 5
    assert stats_of(tmp_path)["labels"]["entropy"] == {"pool": None, "selected": None}


def test_limits_and_memory(tmp_path):
    _, manifest = write(tmp_path, limits={"tokens": 900})
    assert manifest.limits == {"tokens": 900}
    assert manifest.memory.peak_bytes > 1 << 20


def test_an_empty_selection(tmp_path):
    empty = np.zeros(0)
    nothing = Order(empty.astype(np.int64), empty, "score", {})
    _, manifest = write(tmp_path, selection=nothing, objective=empty, labels_earned=(), runners_up=RunnersUp.none())
    assert manifest.n == 0 and (tmp_path / "selection.jsonl").read_bytes() == b""


def test_conversion_and_its_dataset_info(tmp_path):
    write(tmp_path, export_layout="alpaca")
    first = json.loads((tmp_path / "selection.jsonl").read_bytes().splitlines()[0])
    assert (first["instruction"], first["output"]) == ("Why? 9", "Because.")
    columns = json.loads((tmp_path / "dataset_info.json").read_bytes())["run"]["columns"]
    assert set(columns.values()) == set(first)
    with pytest.raises(UserError, match=r"export\.layout"):
        run_facts(export_layout="csv")


def test_mixed_layouts_have_no_dataset_info_and_say_so(tmp_path):
    facts = run_facts()
    facts.pool.sources += (replace(facts.pool.sources[0], layout="alpaca"), replace(facts.pool.sources[0], layout=""))
    manifest = finished_run(tmp_path, facts)
    assert not (tmp_path / "dataset_info.json").exists()
    assert manifest.layout is None and "export.layout=" in manifest.notes[0]


def test_rejects(tmp_path):
    facts = run_facts()
    facts.pool.raw[3], facts.pool.raw[0] = b"{broken", b"[\n1]"
    finished_run(tmp_path, facts, rejected={3: "no JSON", 0: "no\nobject \ud800"})
    assert (tmp_path / "rejects.jsonl").read_bytes() == b"{broken\n[ 1]\n"
    assert (tmp_path / "rejects.txt").read_text() == "pool.jsonl:4: no JSON\npool.jsonl:1: no object ?\n"


def test_sample_file(tmp_path):
    file, folder = tmp_path / "out.jsonl", tmp_path / "out.jsonl.run"
    _, manifest = write(folder, sample_file=file)
    assert len(file.read_bytes().splitlines()) == 5
    assert not (folder / "selection.jsonl").exists()
    assert manifest.sample_file is not None
    assert (manifest.sample_file.path, manifest.sample_file.bytes) == (str(file), file.stat().st_size)
    info = json.loads((folder / "dataset_info.json").read_bytes())
    assert info["run"]["file_name"] == "../out.jsonl"
    with pytest.raises(ValueError, match="budgets"):
        write(folder, sample_file=file, budgets=(2, 5))


def test_manifest_is_read_as_it_was_written(tmp_path):
    _, manifest = write(tmp_path)
    assert read_manifest(tmp_path) == read_manifest(tmp_path / MANIFEST, SelectManifest) == manifest
    plain = json.loads((tmp_path / MANIFEST).read_bytes())
    assert set(plain) == {"kind", *SelectManifest.__struct_fields__} and plain["kind"] == "select"
    assert manifest.graph["mean_degree"] is None  # NaN
    assert (manifest.labels.total, manifest.labels.covered) == (3, 2)
    assert manifest.dropped == {"malformed": 1, "no score": 1}
    assert manifest.inputs[0].sha256 == "ab" * 32
    assert manifest.versions["python"] and manifest.versions["numpy"] == np.__version__
    digest = hashlib.sha256((tmp_path / "selection.jsonl").read_bytes()).hexdigest()
    assert manifest.files["selection.jsonl"].sha256 == digest
    assert set(manifest.files) == {path.name for path in tmp_path.iterdir()} - {MANIFEST, "report.html"}
    assert {"rows", "export", "write"} <= set(manifest.timings)


def test_a_manifest_of_another_kind_is_refused(tmp_path):
    write(tmp_path)
    with pytest.raises(UserError, match="a run of mig-jax select, not of mig-jax vocabulary"):
        read_manifest(tmp_path, VocabularyManifest)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "holds no manifest.json"),
        ("{", "not a readable manifest"),
        ("[]", "not a manifest of mig_jax"),
        ('{"schema": 1}', "not a manifest of mig_jax"),
        ('{"name": "web app"}', "not a manifest of mig_jax"),
        ('{"schema": 99, "kind": "select", "run_key": "a"}', "schema 99"),
        ('{"x": ' + "[" * 100_000, "not a readable manifest"),
        ("\ud800", "not a readable manifest"),
    ],
)
def test_manifests_that_cannot_be_read(tmp_path, text, message):
    if text is not None:
        (tmp_path / MANIFEST).write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(UserError, match=message):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("n", "five", "n"),
        ("objective", {"5": "much"}, "objective"),
        ("labels", {"total": 3}, "labels"),
        ("inputs", [{"path": 1}], r"inputs\[0\]\.path"),
        ("files", [], "files"),
        ("kind", "travel", "kind"),
        ("pool", None, "pool"),
    ],
)
def test_an_edited_manifest_is_refused_by_file_and_key(tmp_path, key, value, shown):
    write(tmp_path)
    plain = json.loads((tmp_path / MANIFEST).read_bytes())
    (tmp_path / MANIFEST).write_text(json.dumps(plain | {key: value}))
    with pytest.raises(UserError, match=rf"manifest\.json: {shown}"):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST).write_text(json.dumps({k: v for k, v in plain.items() if k != "finished"}))
    with pytest.raises(UserError, match=r"manifest\.json: .*finished"):
        read_manifest(tmp_path)


def test_json_of_what_json_has_no_word_for(tmp_path):
    value = {"nan": float("nan"), "inf": [np.float32("inf"), -np.inf], 3: np.int64(4), "a": np.arange(2), "p": tmp_path}
    write_json(tmp_path / "x.json", {**value, "bad": "\ud800", "set": {2, 1}})
    assert json.loads((tmp_path / "x.json").read_bytes()) == {
        "nan": None,
        "inf": [None, None],
        "3": 4,
        "a": [0, 1],
        "p": str(tmp_path),
        "bad": "?",
        "set": [1, 2],
    }
    with pytest.raises(TypeError, match="no JSON form for object"):
        jsonable(object())


def test_pool_stats_count_what_is_there(tmp_path):
    facts, _ = write(tmp_path)
    stats = stats_of(tmp_path)
    assert (stats["rows"], stats["usable"], stats["selected"]) == (14, 12, 5)
    assert stats["labels"] == {
        "total": 3,
        "covered": 2,
        "assignments": {"pool": 12, "selected": 5},
        # 6, 3 and 3 of 12: 1/2 + 2 * (1/4) * 2 bits; 4 and 1 of 5
        "entropy": {"pool": 1.5, "selected": pytest.approx(-0.8 * np.log2(0.8) - 0.2 * np.log2(0.2))},
        "top": [
            {"name": "alpha", "pool": 6, "selected": 4},
            {"name": "beta", "pool": 3, "selected": 1},
            {"name": "gamma", "pool": 3, "selected": 0},
        ],
        "missed": [{"name": "gamma", "pool": 3, "selected": 0}],
    }
    assert {entry["name"]: entry["pool"] for entry in stats["sources"]["top"]} == {"a": 4, "b": 4, None: 4}
    for key in ("score", "chars", "turns"):
        assert sum(stats[key]["pool"]) == 12 and sum(stats[key]["selected"]) == 5, key
    assert sum(stats["tokens"]["pool"]) == 6  # known for every other row
    assert sum(stats["tokens"]["selected"]) == 1
    chars = facts.pool.chars[2:]
    chosen = chars[[7, 0, 11, 3, 5]]
    for name, values in (("pool", chars), ("selected", chosen)):
        assert stats["chars"]["sum"][name] == values.sum()
        assert stats["chars"]["median"][name] == np.median(values)
        assert stats["chars"]["mean"][name] == pytest.approx(values.mean())
    assert stats["tokens"]["sum"]["selected"] == facts.pool.tokens[2]  # of the one that is known
    assert "sum" not in stats["score"]
    assert len(stats["picks"]) == 5 and stats["picks"][0]["where"] == "pool.jsonl:10"
    assert stats["picks"][0]["dialog"] == [["user", "Why? 9"], ["assistant", "Because."]]


def test_pool_stats_of_extremes(tmp_path):
    facts = run_facts()
    pool = facts.pool
    pool.chars[:] = 0
    pool.chars[5] = 10**9
    pool.tokens[:] = -1
    pool.turns[:] = 500
    constant = replace(facts.encoded, score=np.zeros(12))
    finished_run(tmp_path, facts, encoded=constant)
    stats = stats_of(tmp_path)
    assert stats["tokens"] is None
    for key in ("score", "chars", "turns"):
        assert sum(stats[key]["pool"]) == 12, key
    assert stats["turns"]["pool"][-1] == 12 and stats["turns"]["mean"]["pool"] == 500  # beyond the last bin


def test_long_texts_are_cut_and_missed_labels_listed_by_frequency(tmp_path):
    rows = [row(at, text="x" * 5000) for at in range(14)]
    facts = run_facts(rows)
    encoded = replace(
        facts.encoded, labels=("alpha", "beta", "delta", "gamma"), label_idx=facts.encoded.label_idx.copy()
    )
    encoded.label_idx[1] = 3  # a point that was not picked
    finished_run(tmp_path, facts, encoded=encoded)
    stats = stats_of(tmp_path)
    assert len(stats["picks"][0]["dialog"][0][1]) < 700
    assert stats["labels"]["missed"] == [
        {"name": "delta", "pool": 3, "selected": 0},
        {"name": "gamma", "pool": 1, "selected": 0},
    ]


def test_broken_text_from_a_pool_can_be_written(tmp_path):
    rows = [json.dumps(json.loads(row(at)) | {"_id": "\ud800", "source": "\udfff"}).encode() for at in range(14)]
    facts = run_facts(rows, labels=("\ud83d", "beta", "gamma"))
    facts = replace(facts, pool=FakePool(rows, source_names=("\udfff",)))
    finished_run(tmp_path, facts)
    assert pq.read_table(tmp_path / "trace.parquet").column("id")[0].as_py() == "?"


def test_wrong_facts_are_refused():
    for changes in (
        {"budgets": ()},
        {"budgets": (5, 2)},
        {"objective": np.zeros(4)},
        {"labels_earned": [[]]},
    ):
        with pytest.raises(ValueError, match=r"budgets|objective|labels_earned"):
            run_facts(**changes)


def test_with_the_real_pool(tmp_path):
    rows = [row(at, text="é\u2028 <b>") for at in range(14)]
    (tmp_path / "pool.jsonl").write_bytes(b"\n".join(rows))
    facts = replace(run_facts(rows), pool=load_pool(tmp_path / "pool.jsonl"))
    manifest = finished_run(tmp_path / "out", facts)
    assert (tmp_path / "out" / "selection.jsonl").read_bytes().splitlines()[0] == rows[9]
    assert manifest.layout == "mig"
    assert stats_of(tmp_path / "out")["picks"][0]["dialog"][0] == ["user", "é\u2028 <b> 9"]
