"""Progress and notes of a command: amounts in units that can be read, rates, the remaining time."""

import pytest

from mig_jax.cli import terminal
from mig_jax.cli.terminal import Rate, Terminal, line
from mig_jax.core.progress import amount, duration, speed


def test_a_line_of_a_log():
    text = line("embed", 1_200_000, 8_000_000, "tokens", 52_345.6)
    assert text == "embed: 1,200,000 of 8,000,000 tokens, 52,300 tokens/s, 2 min left"
    assert line("ifd", 7, 30, "rows", 0.2817) == "ifd: 7 of 30 rows, 0.28 rows/s, 82 s left"
    assert line("ifd", 7, 30, "rows", 9.96).endswith(" rows, 10 rows/s, 2 s left")
    assert line("embed", 5, 10, "tokens", None) == "embed: 5 of 10 tokens"
    assert line("compress", 1000, None, "", None) == "compress: 1,000"


def test_sizes_are_shown_in_the_unit_of_the_total():
    """They were raw counts: "read pool: 3,191,865,344 of 3,257,545,323"."""
    assert line("read pool", 3_191_865_344, 3_257_545_323, "bytes", None) == "read pool: 3.2 of 3.3 GB"
    text = line("read pool", 50_000_000, 3_257_545_323, "bytes", 4e8)
    assert text == "read pool: 0.1 of 3.3 GB, 400 MB/s, 8 s left"
    assert amount(999, 1_000, "bytes") == "1.0 of 1.0 kB" and amount(0, 999, "bytes") == "0 of 999 bytes"
    assert amount(1_234_567, None, "bytes") == "1.2 MB" and amount(0, None, "bytes") == "0 bytes"
    assert speed(2_500.0, "bytes") == "2.5 kB/s" and speed(310e6, "bytes") == "310 MB/s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (5400, "1.5 h"), (36_000, "10 h"),
     (200_000, "2.3 d")],
)  # fmt: skip
def test_a_remaining_time(seconds, text):
    assert duration(seconds) == text


def test_a_rate_is_of_the_last_minute_and_of_this_attempt():
    rate = Rate()
    assert rate.update(100.0, 5_000) is None  # saved by a previous attempt: not computed at any speed here
    assert rate.update(110.0, 5_000) is None  # compiling
    assert rate.update(120.0, 7_000) == 100.0
    for second in range(121, 400):
        measured = rate.update(float(second), 7_000 + 10 * (second - 120))
    assert measured == pytest.approx(10.0)
    assert len(rate.points) < 70


def test_a_stage_that_begins_anew_has_a_new_rate():
    rate = Rate()
    rate.update(0.0, 0), rate.update(1.0, 1_000)
    assert rate.update(2.0, 0) is None
    assert rate.update(3.0, 5) == 5.0


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    seconds = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: seconds[0])
    return seconds


def test_lines_every_five_seconds(clock, capsys):
    with Terminal() as shown:
        for second in range(13):
            clock[0] = float(second)
            shown.progress("embed", 100 * second, 6_000, "tokens")
            shown.progress("tokenize", second, None)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "embed: 600 of 6,000 tokens, 100 tokens/s, 54 s left"
    assert lines[1] == "tokenize: 6" and len(lines) == 4


def test_bars_of_a_terminal(monkeypatch, clock, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with Terminal() as shown:
        assert shown.live
        shown.progress("read pool", 0, 3_300_000_000, "bytes")
        clock[0] = 2.0
        shown.progress("read pool", 1_000_000_000, 3_300_000_000, "bytes")
        shown.progress("write", 1, 2)
        assert shown.bars is not None
        fields = [(task.fields["amount"], task.fields["rate"]) for task in shown.bars.tasks]
        assert fields == [("1.0 of 3.3 GB", "500 MB/s"), ("1 of 2", "")]
    assert "1.0 of 3.3 GB" in capsys.readouterr().err


@pytest.mark.parametrize("colour", ["1", "0"])
def test_control_characters_of_notes_and_stages_do_not_reach_the_terminal(monkeypatch, clock, capsys, colour):
    """A path or a label may hold ESC, a bell, or a mark that reverses the direction of text."""
    if colour == "1":
        monkeypatch.setenv("FORCE_COLOR", "1")
    with Terminal() as shown:
        shown.notify("p\x1b]0;owned\x07\u202e.jsonl [bold]x[/bold]")
        shown.progress("a\x07[red]", 1, 3)
        clock[0] = 9.0
        shown.progress("a\x07[red]", 2, 3)
    err = capsys.readouterr().err
    assert "note: p␛]0;owned␇⟨U+202E⟩.jsonl [bold]x[/bold]" in err and "a␇[red]" in err
    assert "\x07" not in err and "\u202e" not in err and "\x1b]" not in err
