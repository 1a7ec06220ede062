"""``mig-jax vocabulary`` as a user has it, and ``select`` and ``embed`` with what it wrote."""

import json
import random
import re
import shlex
from pathlib import Path

import cli_pools
import pyarrow.parquet as pq
import pytest
from mig_command import Server

from mig_jax.cli.arguments import prepare
from mig_jax.commands.vocabulary.run import _write_vocabulary
from mig_jax.commands.vocabulary.show import text
from mig_jax.commands.vocabulary.steps import Normalised
from mig_jax.config.keys import keys_of
from mig_jax.labels.valid_tags import read_valid_tags
from mig_jax.runs.manifest import SCHEMA, Devices, Memory, VocabularyManifest

# naïve and naive are two spellings to the rules and one text to a BERT that strips accents: only the semantic step
# merges them. sorting is on two rows, with algebra both times.
TAGS = [
    ["Algebra", "naive"],
    ["algebra", "naïve", "sorting"],
    ["algebra", "naïve", "sorting"],
    ["algebra", "poetry", "Poetry"],
    ["Algebra", "poetry", "poetry"],
    ["naive", "poetry"],
    ["naive", "history"],
    ["ninth", "zebra"],
    ["history", "zebra"],
]
OPTIONS = ["vocabulary.support=2", "vocabulary.distance=1e-4"]
EXPECTED = {
    # rows: algebra 5, naive 5, poetry 3, history 2, zebra 2
    "labels": ["algebra", "naive", "poetry", "history", "zebra"],
    "aliases": {"Algebra": "algebra", "naïve": "naive", "sorting": "algebra"},
}


def pool(path: Path, tags=TAGS) -> Path:
    return cli_pools.write(path, [cli_pools.row(i, tags=row) for i, row in enumerate(tags)])


def run(server: Server, where: Path, *arguments: str, command: str = "vocabulary"):
    return server.run([command, *map(str, arguments)], where)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_files_and_what_is_said(server, with_tiny, tmp_path):
    pool(tmp_path / "p.jsonl")
    command = ["p.jsonl", *with_tiny, *OPTIONS, "out=sub/v"]
    done = run(server, tmp_path, *command)
    assert (done.code, done.err) == (0, ""), done
    assert listing(tmp_path / "sub") == ["v"]
    assert listing(tmp_path / "sub/v") == ["manifest.json", "steps.json", "vocabulary.json"]
    first = (tmp_path / "sub/v/vocabulary.json").read_bytes()
    assert json.loads(first) == EXPECTED
    assert "naïve" in first.decode(), "readable"
    lines = done.out.splitlines()
    # "Poetry" and "ninth" are on one row each.
    assert lines[0] == "9 rows, 10 tags -> 5 labels and 3 other tags that mean one of them; sub/v"
    assert [line.split()[:3] for line in lines[2:7]] == [
        ["step", "tags", "left"],
        ["frequency", "10", "8"],
        ["rules", "8", "7"],
        ["semantic", "7", "6"],
        ["association", "6", "5"],
    ]
    assert lines[8:] == [
        "rules: the one merge",
        "  algebra 3 -> 5 rows <- Algebra 2",
        "",
        "semantic: the one merge",
        "  naive 3 -> 5 rows, spans 0.000 <- naïve 2",
        "",
        "association: the one merge",
        "  algebra 5 -> 5 rows <- sorting 2 (2 with algebra)",
        "",
        "mig-jax select p.jsonl pool.valid_tags=sub/v/vocabulary.json",
    ]
    steps = json.loads((tmp_path / "sub/v/steps.json").read_text())
    assert [step["merged"] for step in steps] == [0, 1, 1, 1]
    manifest = json.loads((tmp_path / "sub/v/manifest.json").read_text())
    known = {"kind": "vocabulary", "rows": 9, "tags": 10, "labels": 5, "aliases": 3, "notes": []}
    assert manifest | known == manifest
    assert manifest["command"].startswith("mig-jax vocabulary ") and len(manifest["inputs"][0]["sha256"]) == 64
    assert manifest["config"]["vocabulary"]["distance"] == 1e-4 and manifest["embedder"]
    assert set(manifest["timings"]) >= {"read pool", "frequency", "rules", "semantic", "association"}
    assert manifest["versions"]["scikit-learn"] and manifest["versions"]["snowballstemmer"]
    assert set(manifest["files"]) == {"steps.json", "vocabulary.json"}


NEXT = [
    ("'my pool.jsonl'", "'my pool.jsonl'"),
    ("pool.path=a=b.jsonl min=3", "'pool.path='\"'\"'a=b.jsonl'\"'\"''"),
    ("pool=tulu3 vocabulary.keep=", "pool=tulu3"),
    (
        "p.jsonl pool.fields.tags=meta.tags pool.on_error=skip",
        "p.jsonl ++pool.fields.tags=meta.tags pool.on_error=skip",
    ),
    ("'pool.path=[a,b]'", "'pool.path=[a,b]'"),
    ("embedder=minilm", ""),
]


@pytest.mark.parametrize(("typed", "shown"), NEXT, ids=[case[0] for case in NEXT])
def test_the_selection_to_type_next_has_the_same_pool(typed, shown):
    arguments = prepare(shlex.split(typed), "vocabulary")
    path = {"'pool.path=[a,b]'": ["a", "b"], "pool=tulu3 vocabulary.keep=": "hf:x/y"}.get(typed)
    path = path or shlex.split(typed)[0].removeprefix("pool.path=")
    command = shlex.join(["mig-jax", "vocabulary", *arguments])
    device = Devices(count=1, kind="cpu", platform="cpu", processes=1)
    manifest = VocabularyManifest(
        schema=SCHEMA, name="v", run_key="f" * 64, command=command, finished="", config={"pool": {"path": path}},
        versions={}, devices=device, timings={}, memory=Memory(peak_bytes=0, since="run"), notes=(), files={},
        inputs=(), rows=1, tags=1, labels=1, aliases=0, steps=(), embedder=None,
    )  # fmt: skip
    last = text(manifest, [], "out/my v").splitlines()[-1]
    assert last == f"mig-jax select {shown}{' ' * bool(shown)}'pool.valid_tags=out/my v/vocabulary.json'"
    again = prepare(shlex.split(last)[2:])
    assert [word for word in again if "pool" in word][:-1] == [word for word in arguments if "pool" in word]


def test_stems_that_are_far_apart_stay_two_and_a_note_says_how_near_the_nearest_are(server, with_tiny, tmp_path):
    """What the small checkpoint thinks of them is arbitrary; that it is asked, and its name, are not."""
    pool(tmp_path / "p.jsonl", [["count", "zebra"], ["counting"], ["count"], ["counting"], ["counting", "zebra"]])
    options = ["vocabulary.support=null", "vocabulary.distance=1e-6"]
    done = run(server, tmp_path, "p.jsonl", *with_tiny, *options, "out=v")
    assert done.code == 0, done
    steps = {step["step"]: step for step in json.loads((tmp_path / "v/steps.json").read_text())}
    assert steps["rules"]["settings"]["stem_cosine"] == 0.7
    for merge in steps["rules"]["merges"]:
        assert [tag["tag"] for tag in merge["tags"]] == ["counting", "count"] and merge["tags"][1]["cosine"] >= 0.7
        assert f"<- count 2 (cosine {merge['tags'][1]['cosine']:.2f})" in done.out
    assert steps["semantic"]["merged"] == 0
    name = json.loads((tmp_path / "v/manifest.json").read_text())["config"]["embedder"]["name"]
    assert (
        f"note: semantic: no two tags are within vocabulary.distance=1e-06 under {name}; the nearest are " in done.err
    )

    spelled = run(server, tmp_path, "p.jsonl", *options[:1], "vocabulary.rules=spelling", "vocabulary.distance=null",
                  "embedder=bert", "embedder.path=nowhere", "out=w")  # fmt: skip
    assert spelled.code == 0, "no embedder is looked for"
    stemmed = run(server, tmp_path, "p.jsonl", *with_tiny, *options[:1], "vocabulary.distance=null", "out=x")
    assert stemmed.code == 0 and json.loads((tmp_path / "x/manifest.json").read_text())["embedder"]


@pytest.mark.slow
def test_done_another_and_overwrite(server, with_tiny, tmp_path):
    pool(tmp_path / "p.jsonl")
    command = ["p.jsonl", *with_tiny, *OPTIONS, "out=v"]
    done = run(server, tmp_path, *command)
    assert (done.code, done.err) == (0, ""), done
    first = (tmp_path / "v/vocabulary.json").read_bytes()
    again = run(server, tmp_path, *command)
    assert (again.code, again.out) == (0, done.out)
    assert again.err == "note: v holds this very run already; overwrite=true would do it again\n"
    for change in ("vocabulary.min_count=1", "vocabulary.keep=", "embedder.pooling=cls"):
        error = run(server, tmp_path, *command, change).error
        assert "holds another run (mig-jax vocabulary " in error and "overwrite=true" in error
    (tmp_path / "v/mine.txt").touch()
    assert run(server, tmp_path, *command, "overwrite=true").code == 0
    assert (tmp_path / "v/vocabulary.json").read_bytes() == first
    assert "mine.txt" in listing(tmp_path / "v")


def test_the_order_of_the_rows_changes_no_byte(server, with_tiny, tmp_path):
    draw = random.Random(3)
    pool(tmp_path / "a.jsonl")
    pool(tmp_path / "b.jsonl", [draw.sample(row, len(row)) for row in draw.sample(TAGS, len(TAGS))])
    found = []
    for name in "ab":
        done = run(server, tmp_path, f"{name}.jsonl", *with_tiny, "vocabulary.support=2", f"out={name}")
        assert done.code == 0, done
        found.append((tmp_path / name / "vocabulary.json").read_bytes())
    assert found[0] == found[1]


@pytest.mark.slow
def test_select_and_embed_take_it(server, with_tiny, tmp_path):
    pool(tmp_path / "p.jsonl")
    file = tmp_path / "v.json"
    file.write_text(json.dumps(EXPECTED))
    command = ["p.jsonl", *with_tiny, "pool.valid_tags=v.json", "n=9"]
    done = run(server, tmp_path, *command, "out=run", command="select")
    assert done.code == 0, done
    stats = json.loads((tmp_path / "run/pool_stats.json").read_text())
    told = {label["name"]: label["pool"] for label in stats["labels"]["top"]}
    assert told == {"algebra": 5, "naive": 5, "poetry": 3, "history": 2, "zebra": 2}
    trace = pq.read_table(tmp_path / "run/trace.parquet").to_pylist()
    earned = {label["label"] for row in trace for label in row["labels"]}
    assert {"algebra", "naive"} <= earned <= set(EXPECTED["labels"])
    assert {row["row"] for row in trace} == set(range(9))

    # A copy elsewhere is the same run; another label for one tag is not.
    (tmp_path / "copy.json").write_text(json.dumps(EXPECTED))
    again = run(server, tmp_path, *command, "pool.valid_tags=copy.json", "out=run", command="select")
    assert (again.code, again.out) == (0, done.out) and "holds this very run already" in again.err
    aliases = EXPECTED["aliases"] | {"sorting": "history"}
    file.write_text(json.dumps(EXPECTED | {"aliases": aliases}))
    assert "holds another run" in run(server, tmp_path, *command, "out=run", command="select").error

    done = run(server, tmp_path, *command[:-1], "embed.target=labels", "out=labels", command="embed")
    assert done.code == 0, done
    assert json.loads((tmp_path / "labels/labels.json").read_text()) == sorted(EXPECTED["labels"])
    assert "5 labels" in run(server, tmp_path, *command, command="plan").out

    file.write_text(json.dumps(EXPECTED | {"aliases": {"sorting": "stories"}}))
    error = run(server, tmp_path, *command, "out=run", command="select").error
    assert error == "pool.valid_tags=v.json: aliases: 'sorting' maps to 'stories', which is not one of the labels"


CASES = [
    ("gone.jsonl", ["gone.jsonl"]),
    ("p.jsonl vocabulary.min_cont=3", ["vocabulary.min_cont: no such key; did you mean vocabulary.min_count?"]),
    ("p.jsonl vocabulary.min_count=0", ["vocabulary.min_count=0: must be a whole number >= 1"]),
    (
        "p.jsonl vocabulary.min_count=99",
        ["vocabulary.min_count=99: no tag is on so many", "'algebra', is on 3"],
    ),
    ("p.jsonl vocabulary.distance=1.5", ["vocabulary.distance=1.5: must be a number > 0 and < 1 or null"]),
    ("p.jsonl vocabulary.stem_cosine=2", ["vocabulary.stem_cosine=2: must be a number"]),
    ("p.jsonl vocabulary.distance=0", ["vocabulary.distance=0: must be a number > 0"]),
    (
        "p.jsonl vocabulary.rules=stems",
        ["vocabulary.rules=stems: must be one of stem, spelling or null"],
    ),
    ("p.jsonl vocabulary.confidence=99", ["vocabulary.confidence=99: must be a number > 0 and <= 1"]),
    ("p.jsonl vocabulary.support=0", ["vocabulary.support=0: must be a whole number >= 1 or null"]),
    ("p.jsonl embedder.normalize=false", ["embedder.normalize=false: ", "unit embeddings"]),
    ("p.jsonl pool.valid_tags=v.json", ["pool.valid_tags=v.json: a vocabulary is made of all tags"]),
    ("p.jsonl mesh.processes=2", ["mesh.processes=2: mig-jax vocabulary is one process"]),
    ("p.jsonl out=p.jsonl", ["out=p.jsonl: is a file"]),
    ("p.jsonl n=5", ["n: no such key", "mig-jax vocabulary --help"]),
    ("p.jsonl -m", ["mig-jax vocabulary: makes one vocabulary; -m belongs to mig-jax select"]),
    ("bare.jsonl", ["none of the pool's 1 annotated rows has a tag", "pool.fields.tags"]),
    ("p.jsonl out=tiny", ["tiny: is not empty and holds no finished run of mig_jax"]),
]


@pytest.mark.slow
def test_what_a_person_gets_wrong_is_one_message_and_nothing_is_written(server, with_tiny, tmp_path):
    pool(tmp_path / "p.jsonl")
    pool(tmp_path / "bare.jsonl", [[], None])
    before = listing(tmp_path)
    wrong = []
    for command, parts in CASES:
        error = run(server, tmp_path, *with_tiny, *command.split(" ")).error
        if not re.search(".*".join(map(re.escape, parts)), error, re.S):
            wrong.append((command, parts, error))
    assert not wrong
    assert listing(tmp_path) == before


def test_help_lists_every_key(server, tmp_path):
    done = run(server, tmp_path, "--help")
    assert done.code == 0 and done.out.startswith("mig-jax vocabulary [POOL]")
    for key in keys_of("vocabulary"):
        assert re.search(rf"(?m)^ *{key.rpartition('.')[2]}(:| \()", done.out) or key.endswith(".name"), key
    assert "mig-jax vocabulary" in server.run(["--help"], tmp_path).out


def test_a_tag_that_no_utf8_holds_comes_back_as_it_was(tmp_path):
    made = Normalised(("a\ud800", 'é"\\u'), (2, 1), {"\udc00\n": "a\ud800"}, (), ())
    _write_vocabulary(tmp_path / "v.json", made)
    assert read_valid_tags(tmp_path / "v.json") == made.vocabulary
