import io
import json

import pytest
from fake_run import finished_run, run_facts
from rich.console import Console

from mig_jax.report import summary, summary_text
from mig_jax.report.summary import bar
from mig_jax.report.text import floor_percent, number, seconds, share
from mig_jax.runs.manifest import SelectManifest, read_manifest


def written(folder, **changes):
    finished_run(folder, **changes)
    return read_manifest(folder, SelectManifest), json.loads((folder / "pool_stats.json").read_bytes())


def test_summary_has_the_main_facts(tmp_path):
    manifest, stats = written(tmp_path, notes=("beware",))
    text = summary_text(manifest, stats, "runs/demo")
    for words in (
        "Picked 5 of 12 rows (41.7 %); the pool has 14",
        "21, 1.50 x a random pick of as many (14), at least 95.4 % of the optimum",
        "2 of 3 (66.7 %)",
        "pool 0.50 s, select 10 ms",
        "left out: 1 no score, 1 malformed",
        "note: beware",
        "runs/demo/selection.jsonl",
        "runs/demo/report.html",
        "(none)",
    ):
        assert words in text, (words, text)
    assert "\x1b" not in text and max(map(len, text.splitlines())) <= 100


def test_a_terminal_gets_colours_and_another_stream_does_not(tmp_path):
    manifest, stats = written(tmp_path)
    for terminal in (True, False):
        stream = io.StringIO()
        Console(file=stream, force_terminal=terminal, color_system="standard" if terminal else None).print(
            summary(manifest, stats, "out")
        )
        assert ("\x1b[" in stream.getvalue()) is terminal


def test_text_of_a_pool_cannot_drive_the_terminal(tmp_path):
    facts = run_facts()
    evil = "[bold]x[/bold]\x1b]0;owned\x07\u202e"
    facts.pool.source_names = (evil, "b")
    finished_run(tmp_path, facts, notes=(evil,))
    text = summary_text(
        read_manifest(tmp_path, SelectManifest),
        json.loads((tmp_path / "pool_stats.json").read_bytes()),
        f"out{evil}",
        width=200,
    )
    assert "[bold]x[/bold]␛]0;owned␇⟨U+202E⟩" in text
    assert not any(ch in text for ch in "\x1b\x07\u202e")


def test_budgets_and_sample_file(tmp_path):
    (tmp_path / "a").mkdir()
    text = summary_text(*written(tmp_path / "a", budgets=(2, 5)), "out")
    assert "E(D) at 2" in text and text.index("selection_2.jsonl") < text.index("selection_5.jsonl")
    text = summary_text(*written(tmp_path / "F.jsonl.run", sample_file=tmp_path / "F.jsonl"), "out", 300)
    assert "F.jsonl" in text and "selection.jsonl" not in text


def test_numbers():
    assert [number(x) for x in (None, 0.0, 3.0, 1.2345, 990.8, 14484.2, 0.001234, 1e-9)] == [
        *("–", "0", "3", "1.23", "991", "14,484", "0.00123", "1.00e-09"),
    ]
    assert [share(a, 1000) for a in (0, 0.5, 500, 999.9, 1000)] == ["0 %", "< 0.1 %", "50.0 %", "> 99.9 %", "100 %"]
    assert share(1, 0) == "–"
    assert [floor_percent(x) for x in (0.93199, 0.999999, 1.0, 0.29, 0.0)] == ["93.1", "99.9", "100.0", "29.0", "0.0"]
    assert [seconds(x) for x in (None, 0.004, 0.5, 14.2, 59.96, 200, 7500)] == [
        *("–", "4 ms", "0.50 s", "14.2 s", "60.0 s", "3 min 20 s", "2 h 5 min"),
    ]


@pytest.mark.parametrize(("part", "width"), [(0, 0), (1e-9, 1), (0.5, 8), (1, 16), (7, 16)])
def test_bar(part, width):
    assert len(bar(part)) == width
