"""A run's files appear all at once or not at all, whatever breaks off when."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mig_jax.core.errors import UserError
from mig_jax.runs.staging import Claim, claim, claim_file

KEY, OTHER = "a" * 64, "b" * 64


def write_run(made: Claim, text: str, names: tuple[str, ...] = ("selection.jsonl",)) -> None:
    """What write_run leaves, as far as staging looks at it."""
    key = json.loads((made.partial / "claim.json").read_text())["run_key"]
    files = {}
    for name in names:
        (made.files / name).write_text(text)
        files[name] = {"bytes": len(text), "sha256": ""}
    sample = None
    if made.sample:
        made.sample.write_text(text)
        sample = {"path": str(made.sample_target), "bytes": len(text), "sha256": ""}
    manifest = {"schema": 1, "kind": "select", "run_key": key, "command": "cmd", "finished": "today", "files": files}
    manifest["sample_file"] = sample
    (made.files / "manifest.json").write_text(json.dumps(manifest))
    (made.files / "report.html").write_text(text)


def finish(out: Path, key: str, text: str = "one", overwrite: bool = False, **names) -> Claim:
    with claim(out, key, overwrite) as made:
        assert made.state != "done"
        write_run(made, text, **names)
        made.publish()
    return made


def beside(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.iterdir() if path != out)


def test_fresh_then_done(tmp_path):
    out = tmp_path / "deep" / "run"
    with claim(out, KEY) as made:
        assert made.state == "fresh"
        write_run(made, "one")
        assert not out.exists()
        made.publish()
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "report.html", "selection.jsonl"]
    assert beside(out) == []
    again = claim(out, KEY)
    assert again.state == "done" and beside(out) == []
    again.release()


def test_empty_folder_is_free(tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    finish(out, KEY)
    assert (out / "selection.jsonl").read_text() == "one"


def test_an_error_leaves_nothing_unless_there_is_a_checkpoint(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(ZeroDivisionError), claim(out, KEY) as made:
        (made.files / "half").write_text("")
        _ = 1 / 0
    assert beside(out) == [] and not out.exists()
    with pytest.raises(ZeroDivisionError), claim(out, KEY) as made:
        (made.checkpoint / "state").write_text("7")
        _ = 1 / 0
    assert beside(out) == [".run.partial"]
    with claim(out, KEY) as made:
        assert made.state == "resume"
        assert (made.checkpoint / "state").read_text() == "7"
        assert list(made.files.iterdir()) == []


def test_partial_of_another_run_is_replaced_and_said(tmp_path):
    out = tmp_path / "run"
    with claim(out, OTHER) as made:
        (made.checkpoint / "state").write_text("7")
    with claim(out, KEY) as made:
        assert made.state == "fresh"
        assert list(made.checkpoint.iterdir()) == []
        assert any("another run" in note for note in made.notes)


def test_another_runs_out_is_refused_and_replaced_when_asked(tmp_path):
    out = tmp_path / "run"
    finish(out, OTHER, "old", names=("selection.jsonl", "selection_9.jsonl"))
    (out / "sft").mkdir()
    (out / "sft" / "weights").write_text("dear")
    with pytest.raises(UserError, match=r"another run \(cmd.*overwrite=true"):
        claim(out, KEY)
    assert beside(out) == []
    finish(out, KEY, "new", overwrite=True)
    assert (out / "selection.jsonl").read_text() == "new"
    assert not (out / "selection_9.jsonl").exists()
    assert (out / "sft" / "weights").read_text() == "dear"
    assert beside(out) == []


def test_foreign_folder_is_refused_and_keeps_its_files_when_overwritten(tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "thesis.tex").write_text("dear")
    with pytest.raises(UserError, match=r"thesis\.tex.*overwrite=true"):
        claim(out, KEY)
    finish(out, KEY, overwrite=True)
    assert (out / "thesis.tex").read_text() == "dear"
    assert claim(out, KEY).state == "done"


def test_somebody_elses_manifest_is_no_run(tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "manifest.json").write_text('{"name": "web app"}')
    with pytest.raises(UserError, match="holds no finished run"):
        claim(out, KEY)


def test_overwrite_does_a_finished_run_again_and_resumes_an_unfinished_one(tmp_path):
    out = tmp_path / "run"
    finish(out, KEY)
    with claim(out, KEY, overwrite=True) as made:
        assert made.state == "fresh"
        (made.checkpoint / "state").write_text("7")
    with claim(out, KEY, overwrite=True) as made:
        assert made.state == "resume"


def test_missing_file_of_this_run_is_written_again_a_changed_one_is_not_lost(tmp_path):
    out = tmp_path / "run"
    finish(out, KEY)
    (out / "selection.jsonl").unlink()
    with claim(out, KEY) as made:
        assert made.state == "fresh" and "selection.jsonl" in made.notes[0]
    (out / "selection.jsonl").write_text("edited by hand")
    with pytest.raises(UserError, match="changed since"):
        claim(out, KEY)


@pytest.mark.parametrize("fail_at", [1, 2])
@pytest.mark.parametrize("restore_fails", [False, True])
def test_crash_between_the_renames_leaves_old_or_new_whole(tmp_path, monkeypatch, fail_at, restore_fails):
    out = tmp_path / "run"
    finish(out, OTHER, "old")
    (out / "kept").write_text("dear")
    made = claim(out, KEY, overwrite=True)
    write_run(made, "new")
    calls = []
    rename = os.rename

    def broken(source, target):
        calls.append(source)
        if len(calls) == fail_at or (restore_fails and len(calls) > fail_at):
            raise OSError("disk is gone")
        rename(source, target)

    monkeypatch.setattr(os, "rename", broken)
    with pytest.raises(OSError, match="disk is gone"):
        made.publish()
    monkeypatch.undo()
    made.release()
    if fail_at == 2 and restore_fails:
        assert not out.exists() and (made.partial / "previous" / "selection.jsonl").read_text() == "old"
    else:
        assert (out / "selection.jsonl").read_text() == "old"
    with pytest.raises(UserError, match="another run"):  # which also puts the old one back
        claim(out, KEY)
    assert (out / "selection.jsonl").read_text() == "old" and (out / "kept").read_text() == "dear"
    finish(out, KEY, "new", overwrite=True)
    assert (out / "selection.jsonl").read_text() == "new" and (out / "kept").read_text() == "dear"
    assert beside(out) == []


def test_crash_while_tidying_is_finished_by_the_next_claim(tmp_path, monkeypatch):
    out = tmp_path / "run"
    finish(out, OTHER, "old", names=("selection.jsonl", "selection_9.jsonl"))
    (out / "kept").write_text("dear")
    made = claim(out, KEY, overwrite=True)
    write_run(made, "new")
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(OSError("gone")))
    with pytest.raises(OSError, match="gone"):
        made.publish()
    monkeypatch.undo()
    made._unlock()
    assert (out / "selection.jsonl").read_text() == "new"
    assert claim(out, KEY).state == "done"
    assert sorted(path.name for path in out.iterdir()) == ["kept", "manifest.json", "report.html", "selection.jsonl"]
    assert beside(out) == []


def test_publish_can_be_tried_again(tmp_path, monkeypatch):
    out = tmp_path / "run"
    with claim(out, KEY) as made:
        write_run(made, "one")
        monkeypatch.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(OSError("quota")))
        with pytest.raises(OSError, match="quota"):
            made.publish()
        monkeypatch.undo()
        made.publish()
    assert claim(out, KEY).state == "done"


def run_python(code: str, *args: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, timeout=60)


def test_kill_9_leaves_no_out_and_a_resume(tmp_path):
    out = tmp_path / "run"
    done = run_python(
        "import os, signal, sys; from mig_jax.runs.staging import claim\n"
        "made = claim(sys.argv[1], sys.argv[2])\n"
        "(made.checkpoint / 'state').write_text('7'); (made.files / 'selection.jsonl').write_text('half')\n"
        "os.kill(os.getpid(), signal.SIGKILL)",
        out,
        KEY,
    )
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()
    with claim(out, KEY) as made:  # the lock died with its process
        assert made.state == "resume" and (made.checkpoint / "state").read_text() == "7"
        assert list(made.files.iterdir()) == []


def test_second_process_is_told_who_holds_it(tmp_path):
    out = tmp_path / "run"
    with claim(out, KEY):
        with pytest.raises(UserError, match=f"pid {os.getpid()}"):
            claim(out, KEY)
        told = run_python(
            "import sys; from mig_jax.runs.staging import claim; claim(sys.argv[1], sys.argv[2], True)", out, OTHER
        )
        assert told.returncode == 1 and "another process" in told.stderr
    claim(out, KEY).release()


def test_paths_that_cannot_be_written_are_refused_before_any_work(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("dear")
    with pytest.raises(UserError, match="is a file"):
        claim(file, KEY, overwrite=True)
    with pytest.raises(UserError, match=f"{file} is a file"):
        claim(file / "below" / "run", KEY, overwrite=True)
    with pytest.raises(UserError, match="URL"):
        claim("gs://bucket/run", KEY)
    with pytest.raises(UserError, match="not a path"):
        claim("a\0b", KEY)
    with pytest.raises(UserError, match="cannot be written"):
        claim(tmp_path / ("x" * 250), KEY)
    with pytest.raises(UserError, match="mount point"):
        claim("/proc", KEY, overwrite=True)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UserError):
        claim(tmp_path / "loop" / "run", KEY)
    monkeypatch.chdir(tmp_path)
    for here in (".", "", "..", tmp_path):
        with pytest.raises(UserError, match="current folder"):
            claim(here, KEY, overwrite=True)
    assert file.read_text() == "dear"
    assert not (tmp_path / "gs:").exists()


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    real = tmp_path / "disk" / "run"
    real.mkdir(parents=True)
    link = tmp_path / "run"
    link.symlink_to(real)
    finish(link, KEY)
    assert link.is_symlink() and (real / "selection.jsonl").exists()


def test_a_strangers_partial_folder_is_left_alone(tmp_path):
    (tmp_path / ".run.partial").mkdir()
    (tmp_path / ".run.partial" / "thesis.tex").write_text("dear")
    with pytest.raises(UserError, match="not made by mig_jax"):
        claim(tmp_path / "run", KEY, overwrite=True)
    assert (tmp_path / ".run.partial" / "thesis.tex").read_text() == "dear"


def finish_file(file: Path, key: str, text: str, overwrite: bool = False) -> None:
    with claim_file(file, key, overwrite) as made:
        assert made.state != "done"
        write_run(made, text, names=())
        assert not file.exists() or overwrite
        made.publish()


def test_sample_file_is_written_exactly_as_asked(tmp_path):
    file = tmp_path / "out.txt"
    finish_file(file, KEY, "one")
    assert file.read_text() == "one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.txt", "out.txt.run"]
    assert claim_file(file, KEY).state == "done"
    with pytest.raises(UserError, match="overwrite=true"):
        claim_file(file, OTHER)
    finish_file(file, OTHER, "new", overwrite=True)
    assert file.read_text() == "new"


def test_sample_file_of_somebody_else(tmp_path):
    file = tmp_path / "out.jsonl"
    file.write_text("dear")
    with pytest.raises(UserError, match="exists already"):
        claim_file(file, KEY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl"]
    finish_file(file, KEY, "one", overwrite=True)
    file.unlink()
    with claim_file(file, KEY) as made:
        assert made.state == "fresh"  # FILE is gone, so the run is done again
    with pytest.raises(UserError, match="not a regular file"):
        claim_file(tmp_path, KEY, overwrite=True)
    with pytest.raises(UserError, match="not a regular file"):
        claim_file("/dev/null", KEY, overwrite=True)


def test_sample_crash_after_file_before_folder(tmp_path, monkeypatch):
    file = tmp_path / "out.jsonl"
    made = claim_file(file, KEY)
    write_run(made, "one", names=())
    (made.checkpoint / "state").write_text("7")
    monkeypatch.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(OSError("gone")))  # FILE comes by os.replace
    with pytest.raises(OSError, match="gone"):
        made.publish()
    monkeypatch.undo()
    made.release()
    assert file.read_text() == "one" and not (tmp_path / "out.jsonl.run").exists()
    with claim_file(file, KEY) as made:
        assert made.state == "resume"
        write_run(made, "one", names=())
        made.publish()
    assert claim_file(file, KEY).state == "done"
