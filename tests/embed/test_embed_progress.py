"""What is said while texts are embedded: tokens, their rate, the time that is left."""

import pytest

from mig_jax.batch import Team, team_of
from mig_jax.cli import terminal
from mig_jax.cli.terminal import Rate, Terminal, left, line
from mig_jax.config.mesh import MeshConfig
from mig_jax.core.errors import UserError


def test_a_line_of_a_log():
    told = line("embed", 1_200_000, 8_000_000, "tokens", 52_345.6)
    assert told == "embed: 1,200,000 of 8,000,000 tokens, 52,300 tokens/s, 2 min left"
    assert line("ifd", 7, 30, "rows", 0.2817) == "ifd: 7 of 30 rows, 0.28 rows/s, 82 s left"
    assert line("ifd", 7, 30, "rows", 9.96).endswith(" rows, 10 rows/s, 2 s left")
    assert line("embed", 5, 10, "tokens", None) == "embed: 5 of 10 tokens"
    assert line("read pool", 1000, None, None, None) == "read pool: 1,000"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0 s"), (59, "59 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (5400, "1.5 h"), (36_000, "10 h"),
     (200_000, "2.3 d")],
)  # fmt: skip
def test_a_time_that_is_left(seconds, told):
    assert left(seconds) == told


def test_a_rate_is_of_the_last_minute_and_of_this_life():
    rate = Rate()
    assert rate.told(100.0, 5_000) is None  # saved before: no speed of ours
    assert rate.told(110.0, 5_000) is None  # compiling
    assert rate.told(120.0, 7_000) == 100.0
    for second in range(121, 400):
        told = rate.told(float(second), 7_000 + 10 * (second - 120))
    assert told == pytest.approx(10.0)
    assert len(rate.points) < 70


def test_lines_every_five_seconds(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: clock[0])
    with Terminal(units={"embed": "tokens"}) as told:
        for second in range(13):
            clock[0] = float(second)
            told.progress("embed", 100 * second, 6_000)
            told.progress("tokenize", second, None)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "embed: 600 of 6,000 tokens, 100 tokens/s, 54 s left"
    assert lines[1] == "tokenize: 6" and len(lines) == 4


def test_bars_of_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    clock = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: clock[0])
    with Terminal(units={"embed": "tokens"}) as told:
        assert told.live
        told.progress("embed", 0, 6_000)
        clock[0] = 2.0
        told.progress("embed", 1_000, 6_000)
        told.progress("write", 1, 2)
        assert told.bars is not None
        assert [task.fields["rate"] for task in told.bars.tasks] == ["500 tokens/s", ""]
    capsys.readouterr()


def test_who_shares_the_batches():
    assert team_of(MeshConfig()) == Team(0, 1)
    assert team_of(MeshConfig(processes=3, process=2)) == Team(2, 3)
    for wrong in ({"processes": 2}, {"process": 0}, {"processes": 2, "process": 2}):
        with pytest.raises(UserError, match=r"mesh\.process"):
            team_of(MeshConfig(**wrong))
