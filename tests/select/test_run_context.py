"""One context for the output folder of a run: claim, notes, manifest, publication, and what stays after an error."""

import json

import msgspec
import pytest

from mig_jax.core.errors import UserError
from mig_jax.runs.manifest import MANIFEST, Source, VocabularyManifest, read_manifest
from mig_jax.runs.run import Run

KEY = "a" * 64
INPUTS = (Source(path="p.jsonl", sha256="b" * 64, size_bytes=3, rows=1, layout="mig", format="jsonl"),)
SECTION = {"rows": 1, "tags": 2, "labels": 2, "aliases": 0, "steps": (), "embedder": None}


def vocabulary(out, notify=lambda text: None) -> Run:
    return Run(out, "mig-jax vocabulary p.jsonl", {"out": str(out)}, notify=notify)


def finish(run: Run) -> VocabularyManifest:
    (run.files / "vocabulary.json").write_text("{}")
    manifest = run.write_manifest(VocabularyManifest, inputs=INPUTS, **SECTION)
    run.publish()
    return manifest


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_run_from_claim_to_publication(tmp_path):
    notes = []
    with vocabulary(tmp_path / "new/run", notes.append) as run:
        assert run.claim(KEY) == run.state == "fresh"
        with run.stage("read"):
            run.note("first", "second")
        manifest = finish(run)
    assert read_manifest(tmp_path / "new/run", VocabularyManifest) == manifest
    assert (manifest.name, manifest.run_key, manifest.config) == ("run", KEY, {"out": str(tmp_path / "new/run")})
    assert list(manifest.notes) == notes == ["first", "second"]
    assert list(manifest.timings)[-2:] == ["read", "write"] and manifest.memory.peak_bytes > 1 << 20
    assert manifest.inputs == INPUTS and set(manifest.files) == {"vocabulary.json"}
    assert manifest.devices.count >= 1 and manifest.devices.mesh is None
    with vocabulary(tmp_path / "new/run") as again:
        assert again.claim(KEY) == "done" and "overwrite=true" in again.done_already
        with pytest.raises(FileNotFoundError):
            (again.files / "x").write_text("")
    with vocabulary(tmp_path / "new/run") as other, pytest.raises(UserError) as error:
        other.claim("c" * 64)
    assert (error.value.key, error.value.value) == ("out", str(tmp_path / "new/run"))


def test_an_error_leaves_no_folder_unless_a_resume_needs_it(tmp_path):
    with pytest.raises(ZeroDivisionError), vocabulary(tmp_path / "new/deep/run") as run:
        run.claim(KEY)
        _ = 1 / 0
    assert names(tmp_path) == []
    with pytest.raises(ZeroDivisionError), vocabulary(tmp_path / "new/deep/run") as run:
        run.claim(KEY)
        (run.checkpoint / "state").write_text("7")
        _ = 1 / 0
    with vocabulary(tmp_path / "new/deep/run") as run:
        assert run.claim(KEY) == "resume" and (run.checkpoint / "state").read_text() == "7"
        finish(run)
    assert names(tmp_path / "new/deep") == ["run"]


def test_a_path_is_checked_before_the_claim_and_the_claim_before_the_files(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError) as error, vocabulary(tmp_path / "file"):
        raise AssertionError("the path was accepted")
    assert error.value.key == "out"
    with vocabulary(tmp_path / "run") as run, pytest.raises(RuntimeError, match="not claimed"):
        _ = run.files


def test_processes_fill_one_checkpoint_and_the_first_publishes(tmp_path):
    with vocabulary(tmp_path / "run") as first, vocabulary(tmp_path / "run") as second:
        assert first.join(KEY, process=0, count=2) == "fresh"
        assert second.join(KEY, process=1, count=2) == "resume"
        (second.checkpoint / "shard").write_text("1")
        assert names(first.checkpoint) == ["shard"]
        finish(first)
    assert names(tmp_path) == ["run"]
    with vocabulary(tmp_path / "run") as late:
        assert late.join(KEY, overwrite=True, process=1, count=2) == "done"  # only process 0 repeats a run


@pytest.mark.parametrize("section", [SECTION | {"rows": "many"}, {"rows": 1}])
def test_a_manifest_that_no_reader_would_accept_is_not_written(tmp_path, section):
    with pytest.raises(msgspec.ValidationError), vocabulary(tmp_path / "run") as run:
        run.claim(KEY)
        run.write_manifest(VocabularyManifest, inputs=INPUTS, **section)
    assert names(tmp_path) == []


def test_an_error_of_an_edited_manifest_has_its_file_and_key(tmp_path):
    with vocabulary(tmp_path / "run") as run:
        run.claim(KEY)
        finish(run)
    file = tmp_path / "run" / MANIFEST
    plain = json.loads(file.read_bytes())
    file.write_text(json.dumps(plain | {"devices": plain["devices"] | {"count": "two"}}))
    with pytest.raises(UserError) as error:
        read_manifest(tmp_path / "run")
    assert (error.value.where, error.value.key) == (file, "devices.count")
