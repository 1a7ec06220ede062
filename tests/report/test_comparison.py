"""Several runs on one page: the tables have the runs' numbers; E(D) is compared only where it is one quantity."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_run import finished_run, run_facts
from test_selection_page import Parsed

from mig_jax.commands.select.files import RunnersUp
from mig_jax.core.errors import UserError
from mig_jax.report import compare, comparison_page
from mig_jax.report.measures import COLUMNS

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A run of ``system`` that picks ``points`` and gains ``gain`` by each."""

    def write(name: str, system: str = "mig", points=(7, 0, 11, 3, 5), gain: float = 4.0, config=None, **changes):
        facts = run_facts()
        order = replace(facts.selection, points=np.array(points), gains=np.full(len(points), gain))
        config = {"n": len(points), "seed": 1, "sampler": {"name": system}} | (config or {})
        changes = {"budgets": (len(points),), "certificate": {}, "labels_earned": (), "name": name} | changes
        changes |= {"selection": order, "objective": np.cumsum(order.gains), "config": config}
        finished_run(tmp_path / name, **changes)
        return tmp_path / name

    return write


def test_systems_on_one_pool(make: Make):
    folders = [
        make("a", "random", (7, 0, 1, 2, 4), 3.0),
        make(
            "b",
            "mig",
            gain=5.0,
            certificate={5: {"bound": 26.0, "ratio": 25 / 26}},
            memory={"peak_bytes": 9, "since": "run"},
        ),
        make("c", "ifd", gain=4.0),
    ]
    both = compare(folders)
    assert both.names == ("mig", "ifd", "random")  # the largest E(D) first
    first = both.rows[0]
    assert (first["objective"], first["random_objective"], first["times_random"]) == (25.0, 14.0, 25 / 14)
    assert first["certificate"] == pytest.approx(25 / 26)
    assert (first["labels_covered"], first["labels_total"]) == (2, 3)
    p = np.array([4, 1]) / 5
    assert first["label_entropy_bits"] == pytest.approx(-(p * np.log2(p)).sum())
    assert first["label_entropy_share"] == pytest.approx(first["label_entropy_bits"] / np.log2(3))
    chars = run_facts().pool.chars[np.array([7, 0, 11, 3, 5]) + 2]
    assert (first["chars_sum"], first["chars_mean"]) == (chars.sum(), pytest.approx(chars.mean()))
    assert first["chars_median"] == np.median(chars)
    assert first["score_mean"] == pytest.approx(np.linspace(1, 5, 12)[[7, 0, 11, 3, 5]].mean())
    assert first["tokens_sum"] is None and first["tokens_mean"] is not None  # counted for one row of five
    assert (first["select_seconds"], first["peak_bytes"]) == (0.01, 9)
    assert both.rows[2]["peak_bytes"] > 1 << 20 and both.rows[2]["certificate"] is None
    assert both.shared.tolist() == [[5, 5, 2], [5, 5, 2], [2, 2, 5]]
    assert both.different == () and both.notes == []


def test_the_page_has_the_same_numbers(make: Make, tmp_path: Path):
    folders = [
        make("a", "random", (7, 0, 1, 2, 4), 3.0),
        make("b&<i>", "mig", certificate={5: {"bound": 1, "ratio": 0.5}}),
    ]
    (folders[1] / "report.html").write_text("<p>")
    text = comparison_page(compare(folders), tmp_path)
    parsed = Parsed(text)
    shown = " ".join(parsed.text)
    for words in (
        "2 selections compared",
        "1.43",  # 20 / 14
        "50.0 %",
        "40 %",  # two of five rows shared
        "two random selections share 41.7 %",
        "66.7 %",  # of the labels
        "random picks",
        "33.3 %",  # of the pool are of source a
    ):
        assert words in shown, words
    assert not parsed.tags & {"script", "link", "img", "iframe", "object"}
    links = [value for name, value in parsed.attributes if name == "href"]
    assert links == ["./b%26%3Ci%3E/report.html", "./a/report.html"]
    assert "href" not in comparison_page(compare(folders))
    assert comparison_page(compare(folders), tmp_path) == text


def test_one_system_with_several_settings(make: Make):
    gains = [{"sampler": {"name": "mig", "gain": gain, "c": 1}, "phi": {"kind": "x"}} for gain in ("exact", "first")]
    one, two = (make(config["sampler"]["gain"], config=config) for config in gains)
    other = make("r", "random", config={"sampler": {"name": "random", "d": 2}, "phi": {"kind": "x"}})
    both = compare([one, two, other])
    assert both.names == ("mig gain=exact", "mig gain=first", "random")
    assert both.settings == ({"sampler.gain": "exact"}, {"sampler.gain": "first"}, {})
    third = make("i", "ifd", config={"sampler": {"name": "ifd", "score": "x"}, "phi": {"kind": "x"}})
    both = compare([one, other, third])  # a setting of one system alone does not distinguish them
    assert both.names == ("mig", "random", "ifd") and both.settings == ({}, {}, {})
    assert compare([one, make("again", config=gains[0])]).names == ("mig (exact)", "mig (again)")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"graph": {"threshold": 0.5}}, "label graphs"),
        ({"config": {"phi": {"kind": "log"}}}, "phi"),
        ({"config": {"score": {"from": "ifd"}}}, "scores of rows"),
        ({"config": {"graph": {"propagation": 0.5}}}, "label graphs"),
    ],
)
def test_what_cannot_be_compared_is_noted_and_not_drawn(make: Make, change, what: str):
    both = compare([make("a"), make("b", gain=9.0, **change)])
    assert both.different == (what,) and [run.name for run in both.runs] == ["a", "b"]  # as given
    text = comparison_page(both)
    assert f"different {what}: their E(D) cannot be compared" in text
    assert 'class="curve' not in text.partition("Information over rows")[2].partition("<h2>")[0]
    assert "cannot be compared" in both.text()


def test_different_pools_share_no_rows(make: Make):
    facts = run_facts()
    facts.pool.sources = (replace(facts.pool.sources[0], sha256="cd" * 32),)
    both = compare([make("a"), make("b", pool=facts.pool)])
    assert both.different == ("pools",)
    assert both.shared.tolist() == [[5, -1], [-1, 5]]
    text = comparison_page(both)
    assert "Rows that two selections share" not in text and "all usable rows" not in text
    assert csv_of(both)[0]["shared with mig (b)"] == ""


def test_sizes_differ(make: Make):
    both = compare([make("a", points=(7, 0)), make("b"), make("all", "pool", tuple(range(12)))])
    assert [run.name for run in both.runs] == ["a", "b", "all"]
    assert "from 2 to 5 rows" in both.notes[0]  # the whole pool is no selection
    text = comparison_page(both)
    pairs = text.partition("Rows that two selections share")[2].partition("<h2>")[0]
    assert "Jaccard" in pairs and pairs.count(">40 %<") == 2  # 2 of 5, both ways round
    assert "continues beyond the chart" in text
    assert "all usable rows" not in text  # that run is a line of its own


def test_a_system_that_ran_dry(make: Make):
    both = compare([make("a", gain=1.0), make("b", "instag", (7, 0), budgets=(5,), gain=3.0)])
    assert both.names == ("instag", "mig")  # as many were asked for
    assert both.rows[0]["rows"] == 2 and both.rows[0]["requested"] == 5
    assert both.rows[0]["times_random"] == 6.0 / 6.0  # of two rows
    assert "instag has 2 of 5 requested rows." in both.notes
    assert "of 5 requested" in comparison_page(both)


def test_without_labels(make: Make):
    bare = replace(run_facts().encoded, labels=(), label_idx=np.zeros(0, np.int32), label_ptr=np.zeros(13, np.int64))
    both = compare([make(name, encoded=bare, runners_up=RunnersUp.none()) for name in "ab"])
    assert both.rows[0]["objective"] is None and both.rows[0]["labels_covered"] is None
    assert both.notes == ["The pool has no labels: E(D) is not known."]
    text = comparison_page(both)
    Parsed(text)
    assert "Information over rows" not in text and "nan" not in text.partition("<body>")[2].lower()


def csv_of(both) -> list[dict[str, str]]:
    return list(csv.DictReader(both.csv().splitlines()))


def test_csv_has_every_column_with_all_digits(make: Make):
    both = compare([make("a", points=(7, 0, 1, 2, 4), gain=1 / 3), make("b", gain=2.0)])
    lines = csv_of(both)
    assert set(COLUMNS) < set(lines[0]) and [*lines[0]][:3] == ["run", "system", "settings"]
    assert float(lines[1]["objective"]) == both.runs[1].objective[-1] == both.rows[1]["objective"]
    assert lines[0]["certificate"] == "" and lines[0]["shared with mig (a)"] == "2"
    assert sum(int(value) for key, value in lines[0].items() if key.startswith("rows of ")) == 5
    assert "rows of (no source)" in lines[0]


@pytest.mark.parametrize("width", [40, 80, 160])
def test_text_fits(make: Make, width: int):
    both = compare([make("a"), make("b\x1b[31m" + "x" * 60, gain=9.0)])
    table = both.text(width).splitlines()[:3]
    assert max(map(len, table)) <= width and "E(D)" in table[0]
    assert "\x1b" not in both.text(width)
    assert len({line.index(value) + len(value) for line, value in zip(table[1:], ("45", "20"), strict=True)}) == 1


def test_many_runs_and_sources(make: Make):
    """More runs than colours, more sources than letters."""
    folders = [make(f"r{at}", gain=1.0 + at) for at in range(30)]
    stats = json.loads((folders[0] / "pool_stats.json").read_text())
    stats["sources"]["top"] = [{"name": f"s{at:02}", "pool": 1, "selected": int(at < 5)} for at in range(12)]
    for folder in folders:
        (folder / "pool_stats.json").write_text(json.dumps(stats))
    both = compare(folders)
    text = comparison_page(both)
    Parsed(text)
    assert "Not shown for more than" in text and "all other sources" in text
    assert both.composition(both.runs[0]) == [1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert both.composition(both.runs[0], "pool")[-1] == 2


def test_mistakes(make: Make, tmp_path: Path):
    with pytest.raises(UserError, match="at least one"):
        compare([])
    with pytest.raises(UserError, match="holds no manifest"):
        compare([tmp_path])
    folder = make("embeddings")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"kind": "embed"}))
    with pytest.raises(UserError, match="a run of mig-jax embed, not of mig-jax select"):
        compare([folder])
