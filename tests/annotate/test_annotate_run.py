"""The command on tiny models: every row once and in its own bytes, what is put into it, what is refused."""

import gzip
import json
from pathlib import Path

import annotate_cases as cases
import numpy as np
import pytest
from mig_command import Server

from mig_jax.models.checkpoints.checkpoint import EmbedderSpec
from mig_jax.models.inference.embed import load_embedder
from mig_jax.models.tokenizers.text_tokenizer import load_text_tokenizer
from mig_jax.pool import ABSENT, PRESENT, load_pool

ALL = "annotators=[tags,deita,ifd,tokens]"
OWN = ("annotation", "ifd_score")


def annotate(server: Server, folder: Path, *arguments: str, code: int = 0):
    """Run it; its exit code must be ``code``."""
    done = server.run(["annotate", *arguments], folder)
    assert done.code == code, done
    return done


def without(row: dict) -> dict:
    return {key: value for key, value in row.items() if key not in OWN}


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """40 plain rows."""
    return cases.write(tmp_path / "p.jsonl", [cases.raw(i) for i in range(40)])


def test_every_annotator_at_once_and_one_by_one(server, settings, pool, tmp_path):
    """In any order and in parts the rows say the same; nothing but the annotations differs from what came."""
    annotate(server, tmp_path, "p.jsonl", ALL, *settings, "out=once")
    annotate(server, tmp_path, "p.jsonl", "annotators=[tokens,ifd,deita,tags]", *settings, "out=other")
    assert (tmp_path / "once/pool.jsonl").read_bytes() == (tmp_path / "other/pool.jsonl").read_bytes()
    before = "p.jsonl"
    for name in ("ifd", "tags", "tokens", "deita"):
        annotate(server, tmp_path, before, f"annotators={name}", *settings, f"out={name}")
        before = name  # a folder that annotate wrote is the pool in it
    rows, parts = cases.lines(tmp_path / "once/pool.jsonl"), cases.lines(tmp_path / "deita/pool.jsonl")
    assert rows == parts
    raws = cases.lines(pool)
    assert [without(row) for row in rows] == raws
    for row in rows:
        assert row["annotation"]["dialog_round"] == 1
        assert {len(row["annotation"]["deita"][f"{of}_scores"]) for of in ("complexity", "quality")} == {1}
        assert all(1 <= s[0] <= 6 for s in row["annotation"]["deita"].values())
    scored = [row for row in rows if "ifd_score" in row]
    assert len(scored) == sum(len(raw["dialogs"][1]["content"]) > 0 for raw in raws)  # an empty answer has no IFD
    manifest = json.loads((tmp_path / "once/manifest.json").read_text())
    assert manifest["annotators"]["ifd"]["annotated"] == len(scored)
    refused = cases.lines(tmp_path / "once/refused.jsonl")
    assert [one["id"] for one in refused] == [row["id"] for row in rows if "ifd_score" not in row]
    assert {one["annotator"] for one in refused} == {"ifd"}
    assert not (tmp_path / "tags/refused.jsonl").exists()


def test_the_bytes_of_a_row_stay(server, settings, tmp_path):
    """Whatever spacing and escapes a line has; also of a compressed file."""
    lines = [
        '{ "id" : "r0",\t"dialogs":[{"role":"user","content":"tell \\u006de of \\ud83d\\ude00 chess"}]  }',
        '{"dialogs": [{"role": "user", "content": "law?"}, {"role": "assistant", "content": "é"}], "n": 1e3, "n": 2.0}',
    ]
    with gzip.open(tmp_path / "p.jsonl.gz", "wt", newline="") as file:
        file.write("\r\n".join(lines))
    annotate(server, tmp_path, "p.jsonl.gz", "annotators=tokens", *settings, "out=run")
    written = (tmp_path / "run/pool.jsonl").read_text().splitlines()
    counts = [len("tell me of 😀 chess".encode()), len("law?é".encode())]  # a token a byte
    first, second = (f'"annotation": {{"token_count": {count}}}' for count in counts)
    assert written[0] == lines[0].replace("  }", f", {first}  }}")
    assert written[1] == lines[1][:-1] + f", {second}}}"


def test_tags_are_the_nearest_labels(server, settings, tiny, pool, tmp_path):
    annotate(server, tmp_path, "p.jsonl", "annotators=[tags]", *settings, "tags.max_tags=3", "out=run")
    embedder = load_embedder(EmbedderSpec(name="tiny", path=tiny.folder, max_length=64))
    labels = sorted(cases.VOCABULARY)
    texts = [raw["dialogs"][0]["content"] for raw in cases.lines(pool)]
    cosine = embedder.embed(texts).astype(np.float64) @ embedder.embed(labels).astype(np.float64).T
    for row, near in zip(cases.lines(tmp_path / "run/pool.jsonl"), cosine, strict=True):
        expected = [labels[k] for k in np.argsort(-near, kind="stable")[:3] if near[k] >= 0.2]
        assert row["annotation"]["instag"]["content"] == expected
    facts = json.loads((tmp_path / "run/manifest.json").read_text())["annotators"]["tags"]
    assert facts["vocabulary"] == 10 and facts["rows_without_a_label"] == int((cosine.max(1) < 0.2).sum())


def test_what_all_labels_share_is_taken_off(server, settings, tiny, pool, tmp_path):
    """From 32 labels on, unless centre=false."""
    labels = sorted(f"{word}{letter}" for word in cases.VOCABULARY for letter in "abcd")
    (tmp_path / "tags.json").write_text(json.dumps(labels))
    embedder = load_embedder(EmbedderSpec(name="tiny", path=tiny.folder, max_length=64))
    vector = embedder.embed([raw["dialogs"][0]["content"] for raw in cases.lines(pool)]).astype(np.float64)
    plain = embedder.embed(labels).astype(np.float64)
    centred = plain - plain.mean(0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    for centre, label in (("true", centred), ("false", plain)):
        name = f"out={centre}"
        annotate(server, tmp_path, "p.jsonl", "annotators=[tags]", *settings, f"tags.centre={centre}", name)
        for row, near in zip(cases.lines(tmp_path / centre / "pool.jsonl"), vector @ label.T, strict=True):
            expected = [labels[k] for k in np.argsort(-near, kind="stable")[:5] if near[k] >= 0.2]
            assert row["annotation"]["instag"]["content"] == expected


def test_awkward_rows_are_annotated_or_refused_by_name(server, settings, llama, tmp_path):
    cases.write(tmp_path / "p.jsonl", list(cases.AWKWARD.values()))
    done = annotate(server, tmp_path, "p.jsonl", ALL, *settings, "out=run")
    assert not (tmp_path / "pwned").exists()
    rows = dict(zip(cases.AWKWARD, cases.lines(tmp_path / "run/pool.jsonl"), strict=True))
    came = dict(zip(cases.AWKWARD, cases.lines(tmp_path / "p.jsonl"), strict=True))
    names = list(cases.AWKWARD)
    refused = {(names[one["line"] - 1], one["annotator"]): one for one in cases.lines(tmp_path / "run/refused.jsonl")}
    for name, row in rows.items():
        assert without(row) == without(came[name])
        for annotator, has in (
            ("tags", "content" in ((row.get("annotation") or {}).get("instag") or {})),
            ("deita", "deita" in (row.get("annotation") or {})),
            ("tokens", "token_count" in (row.get("annotation") or {})),
        ):
            assert has != ((name, annotator) in refused), (name, annotator)
    nothing_asked = {"a system's turn alone", "an assistant's turn alone", "turns of no dialog", "no turns at all"}
    assert {name for name, annotator in refused if annotator == "tags"} == nothing_asked | {"empty turns"}
    assert refused["empty turns", "tags"]["reason"] == "the user says nothing"
    assert refused["no turns at all", "tags"]["reason"] == "no dialog"
    assert {name for name, annotator in refused if annotator == "deita"} == nothing_asked | {"no answer"}
    assert {name for name, annotator in refused if annotator == "tokens"} == {"turns of no dialog", "no turns at all"}
    assert rows["several turns"]["annotation"]["dialog_round"] == 2
    assert len(rows["several turns"]["annotation"]["deita"]["quality_scores"]) == 2
    assert rows["annotated before"]["annotation"]["mine"] == [1, 2]
    assert rows["no answer"]["annotation"]["token_count"] == len("what is music?")
    assert "refused: " in done.out and "no user turn" in done.out
    where = refused["no answer", "deita"]["where"]
    assert where == "p.jsonl:5"


def test_a_value_that_is_not_renewed_becomes_null(server, settings, tmp_path):
    """Of two forms of a score, or two taggers, none stands beside the other; what else an object holds stays."""
    old = {"annotation": {"instag": {"content": ["old"], "versions": [1]}}, "ifd_score": {"content": 0.9, "by": "them"}}
    rows = [cases.raw(1, **old), cases.raw(2, ("user", "  "), ("assistant", ""), **old)]
    cases.write(tmp_path / "p.jsonl", rows)
    done = annotate(server, tmp_path, "p.jsonl", "annotators=[tags,ifd]", *settings, "out=run")
    renewed, refused = cases.lines(tmp_path / "run/pool.jsonl")
    assert renewed["annotation"]["instag"]["versions"] == refused["annotation"]["instag"]["versions"] == [1]
    assert renewed["annotation"]["instag"]["content"] != ["old"] and renewed["ifd_score"]["version"] == "cherry"
    assert refused["annotation"]["instag"]["content"] is None
    assert refused["ifd_score"] == {"content": None, "by": "them"}
    assert done.out.count("1 row had a value that was not replaced") == 2
    assert load_pool(tmp_path / "run").tag_state.tolist() == [PRESENT, ABSENT]


def test_where_it_must_not_write(server, settings, tmp_path):
    """On what is read, or into a folder that is the pool; and files of two layouts are no one file."""
    cases.write(tmp_path / "d/p.jsonl", [cases.raw(i) for i in range(6)])
    annotate(server, tmp_path, "d", "annotators=[tokens]", *settings, "out=run")
    done = annotate(server, tmp_path, "run", "annotators=[tags]", *settings, "out=run", "overwrite=true", code=2)
    assert "out=run: holds " in done.error and "which is read" in done.error
    assert len(cases.lines(tmp_path / "run/pool.jsonl")) == 6
    done = annotate(server, tmp_path, "d", "annotators=[tokens]", *settings, "out=d/x", code=2)
    assert "out=d/x: is inside d, which is the pool" in done.error
    cases.write(tmp_path / "two/a.jsonl", [{"instruction": "a", "output": "b"}])
    cases.write(tmp_path / "two/b.jsonl", [cases.raw(0)])
    done = annotate(server, tmp_path, "two", "annotators=[tokens]", *settings, "out=other", code=2)
    assert "files of several layouts (alpaca, mig)" in done.error
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("annotators", "more", "told"),
    [
        ("tags", {}, "mig-jax select run score.from=none selects from it (by tags alone: no row has a score"),
        ("[tags,ifd]", {}, "mig-jax select run score.from=ifd selects from it\n"),
        ("tags", {"ifd_score": {"content": 0.5}}, "mig-jax select run score.from=ifd selects from it\n"),
        ("[tags,deita]", {}, "mig-jax select run selects from it\n"),
    ],
)
def test_the_next_command_works(server, settings, tmp_path, annotators, more, told):
    """What the run says one may type next."""
    cases.write(tmp_path / "p.jsonl", [cases.raw(i, **more) for i in range(1, 30)])
    done = annotate(server, tmp_path, "p.jsonl", f"annotators={annotators}", *settings, "out=run")
    assert told in done.out
    command = told.removeprefix("mig-jax ").split(" selects")[0].split()
    selected = server.run([*command, "n=3", "out=picked", *settings[:4]], tmp_path)
    assert selected.code == 0, selected
    assert len(cases.lines(tmp_path / "picked/selection.jsonl")) == 3


def test_another_setting_is_another_run(server, settings, llama, tmp_path):
    """Everything that decides the bytes is in the run's key: max_length cuts a tagger's prompts."""
    cases.write(tmp_path / "p.jsonl", [cases.raw(0, ("user", "law " * 200), ("assistant", "no"))])
    model = ["model@tags.model=checkpoint", f"tags.model.path={llama}", "tags.max_new_tokens=9", "tags=instag"]
    command = ["p.jsonl", "annotators=[tags]", *settings[:-1], *model, "out=run"]
    annotate(server, tmp_path, *command)
    for change in ("tags.model.max_length=500", "tags.max_new_tokens=8", "tags.prompt=Tags of {query}:"):
        assert "another run" in annotate(server, tmp_path, *command, change, code=2).error, change


def test_the_pool_can_be_selected_from(server, settings, pool, tmp_path):
    annotate(server, tmp_path, "p.jsonl", ALL, *settings, "out=run")
    for more in (["score.from=ifd"], []):
        arguments = ["select", "run", "n=5", f"out=picked{len(more)}", "overwrite=true", *settings[:4], *more]
        done = server.run(arguments, tmp_path)
        assert done.code == 0, done
    assert len(cases.lines(tmp_path / "picked0/selection.jsonl")) == 5
    done = server.run(["select", "run", "limits.tokens=200", "out=t", "sampler=random", *settings[:4]], tmp_path)
    picked = cases.lines(tmp_path / "t/selection.jsonl")
    assert done.code == 0 and 0 < sum(row["annotation"]["token_count"] for row in picked) <= 200, done


def test_some_rows_and_rows_that_are_none(server, settings, tmp_path):
    half = '{"dialogs": [{"role": "user", "content": "sad \\ud83d face"}]}'  # of a surrogate pair: not JSON here
    cases.write(tmp_path / "p.jsonl", [cases.raw(0), "[1, 2]", '{"dialogs": [', cases.raw(1), half, cases.raw(2)])
    done = annotate(server, tmp_path, "p.jsonl", "annotators=tokens", *settings, "out=run", code=2)
    assert "p.jsonl:2: not an object" in done.error and "pool.on_error=skip" in done.error
    assert not (tmp_path / "run").exists()
    skip = ["annotators=tokens", *settings, "pool.on_error=skip"]
    done = annotate(server, tmp_path, "p.jsonl", *skip, "out=run")
    assert [row["id"] for row in cases.lines(tmp_path / "run/pool.jsonl")] == ["r0", "r1", "r2"]
    assert (tmp_path / "run/rejects.jsonl").read_text() == f'[1, 2]\n{{"dialogs": [\n{half}\n'
    assert "p.jsonl:3: " in (tmp_path / "run/rejects.txt").read_text()
    assert "3 rows without a JSON object" in done.out
    annotate(server, tmp_path, "p.jsonl", *skip, "rows=2", "out=two")
    assert [row["id"] for row in cases.lines(tmp_path / "two/pool.jsonl")] == ["r0", "r1"]


def test_the_same_run_again_and_another_ones_folder(server, settings, pool, tmp_path):
    command = ["p.jsonl", "annotators=[tags]", *settings, "out=run"]
    annotate(server, tmp_path, *command)
    written = (tmp_path / "run/manifest.json").read_bytes()
    done = annotate(server, tmp_path, *command)
    assert "holds this very run already" in done.err and "tags: 40 of 40 rows" in done.out
    assert (tmp_path / "run/manifest.json").read_bytes() == written
    for change in ("tags.threshold=0.3", "annotators=[tags,tokens]", "rows=3", "annotate.batch_tokens=64"):
        assert "another run" in annotate(server, tmp_path, *command, change, code=2).error
    assert (tmp_path / "run/manifest.json").read_bytes() == written
    annotate(server, tmp_path, *command, "rows=3", "overwrite=true")
    assert len(cases.lines(tmp_path / "run/pool.jsonl")) == 3


def test_a_plan_writes_nothing(server, settings, pool, tmp_path):
    before = sorted(path.name for path in tmp_path.iterdir())
    done = annotate(server, tmp_path, "p.jsonl", ALL, *settings, "out=run", "plan=true")
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    names = [line.split("  ")[0] for line in done.out.splitlines()]
    assert names[1:5] == ["tags", "deita: complexity", "deita: quality", "ifd"]
    assert "40 rows in about " in done.out
    assert "no model runs" in annotate(server, tmp_path, "p.jsonl", "annotators=tokens", *settings, "plan=true").out


def test_the_tagger_writes_tags(server, settings, llama, pool, tmp_path):
    """A random model writes nonsense: no tag is made of it, and every row keeps what it wrote."""
    model = ["model@tags.model=checkpoint", f"tags.model.path={llama}", "tags.max_new_tokens=9"]
    command = ["p.jsonl", "annotators=[tags]", *settings[:-1], "tags=instag", *model, "rows=7"]
    done = annotate(server, tmp_path, *command, "out=run")
    rows = cases.lines(tmp_path / "run/pool.jsonl")
    assert all(set(row["annotation"]["instag"]) == {"raw"} for row in rows)
    facts = json.loads((tmp_path / "run/manifest.json").read_text())["annotators"]["tags"]
    assert facts["answers"] == {"json": 0, "repaired": 0, "malformed": 7}
    assert "7 the tagger's answer is not what it should be" in done.out
    from mig_jax.models.checkpoints.checkpoint import ModelSpec
    from mig_jax.models.inference.generate import generate
    from mig_jax.models.inference.language_model import load_language_model

    prompt = (
        "You are a helpful assistant. Please identify tags of user intentions in the following user query and provide "
        'an explanation for each tag. Please respond in the JSON format {"tag": str, "explanation": str}. '
        "Query: tell me of poetry 1 Assistant: "
    )
    wrong = annotate(server, tmp_path, *command, "tags.prompt=Tag this", "out=wrong", code=2)
    assert "tags.prompt: must have {query} in it, once" in wrong.error
    own = generate(load_language_model(ModelSpec(name="tiny", path=llama)), [prompt], max_new_tokens=9)
    assert rows[1]["annotation"]["instag"]["raw"] == own[0].text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["annotators=[tags,quality]"], "annotators=[tags,quality]: 'quality' is no annotator; there are tags, deita"),
        (["annotators=[tag]"], "did you mean tags?"),
        (["annotators=[]"], "annotators=[]: none is named"),
        (["annotators=[ifd,ifd]"], "one is named twice"),
        (["tags.max_tags=0"], "tags.max_tags=0: must be a whole number >= 1"),
        (["tags.threshold=1.5"], "tags.threshold=1.5: must be auto or a number >= -1 and <= 1"),
        (["tags=tagger"], "tags=tagger: must be one of instag, nearest"),
        (["tags=instag"], "tags.threshold: not a key of the tags chosen; tags=nearest has it"),
        (["ifd=ratio"], "ifd=ratio: must be one of cherry, superfiltering"),
        (["tag.max_tags=3"], "tag.max_tags: no such key"),
        (["annotators=[car]"], "CaR's published scorers are pickles"),
        (["pool.valid_tags=none.json"], "pool.valid_tags=none.json: no such file"),
        (["rows=0"], "rows=0: must be a whole number >= 1"),
        (["n=3"], "n: no such key"),
        (["out=."], "is the current folder or above it"),
    ],
)
def test_mistakes(server, settings, pool, tmp_path, arguments, told):
    before = sorted(path.name for path in tmp_path.iterdir())
    done = annotate(server, tmp_path, "p.jsonl", "annotators=[tags]", *settings, *arguments, code=2)
    assert told in done.error
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_no_tokenizer_of_a_model_is_asked_twice_for_a_row(llama):
    """The byte tokenizer of these tests is what it says: a token a byte."""
    tokenizer = load_text_tokenizer(llama)
    assert [len(ids) for ids in tokenizer.encode_plain(["", "a", "é", "😀"])] == [0, 1, 2, 4]


def test_a_pool_is_read_from_the_folder(server, settings, pool, tmp_path):
    annotate(server, tmp_path, "p.jsonl", "annotators=[tokens]", *settings, "out=run")
    loaded = load_pool(tmp_path / "run")
    assert len(loaded) == 40 and (loaded.tokens > 0).all()


def test_a_page_shows_what_was_made(server, settings, pool, tmp_path):
    """From the folder's files alone, which are the same however often they are made."""
    for out in ("run", "again"):
        annotate(server, tmp_path, "p.jsonl", ALL, *settings, f"out={out}")
    stats = (tmp_path / "run/annotation_stats.json").read_bytes()
    assert stats == (tmp_path / "again/annotation_stats.json").read_bytes()
    rows, found = cases.lines(tmp_path / "run/pool.jsonl"), json.loads(stats)
    assert found["tags"]["rows"] == 40 and set(found["scores"]) == {"complexity", "quality", "ifd", "tokens"}
    assert found["scores"]["tokens"]["quartiles"][4] == max(row["annotation"]["token_count"] for row in rows)
    shown = (tmp_path / "run/report.html").read_text()
    assert "40</b> rows of <bdi>p.jsonl" in shown and "DEITA: complexity" in shown
    done = server.run(["report", "run", "out=page.html"], tmp_path)
    assert done.code == 0 and (tmp_path / "page.html").read_text() == shown, done
    done = server.run(["report", "run"], tmp_path)
    assert done.code == 0 and "run/report.html" in done.out and "tags: 40 of 40 rows" in done.out, done
