"""The page is whole, made from a run's folder alone, and a pool's text is only ever text on it."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_run import FakePool, finished_run, row, run_facts

from mig_jax.commands.select.files import RunnersUp
from mig_jax.core.errors import UserError
from mig_jax.report import compare, comparison_page, load_run, page

VOID = {"meta", "br"}
SHAPES = {"circle", "path", "use", "rect", "g", "defs", "clippath"}


class Parsed(HTMLParser):
    """Tags, attributes and text of a page; complains about tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = set(), [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in SHAPES, tag
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def written(tmp_path):
    def make(name="run", **changes):
        finished_run(tmp_path / name, page=page, **({"name": name} | changes))
        return tmp_path / name

    return make


def test_page_has_every_section_and_nothing_from_elsewhere(written):
    text = (written() / "report.html").read_text()
    parsed = Parsed(text)
    shown = " ".join(parsed.text)
    for words in (
        "What this selection adds",
        "Information over rows",
        "Where the rows come from",
        "Labels",
        "Distributions",
        "The first 5 picks",
        "Runners-up",
        "Rows left out",
        "How to reproduce",
        "mig-jax select pool.jsonl n=5",
        "1.50 × a random pick",
        "95.4 %",  # 21 / 22, never rounded up
    ):
        assert words in shown, words
    assert not parsed.tags & {"script", "link", "img", "iframe", "object"}
    for name, value in parsed.attributes:
        if name in ("href", "xlink:href", "src", "action"):
            assert value.startswith("#"), (name, value)
    assert "http" not in text.replace("http-equiv", "")
    assert "prefers-color-scheme: dark" in text and not re.search(r'style="[^"]*#[0-9a-f]{6}', text)


def test_page_is_a_function_of_the_folder(written):
    folder = written()
    assert page(folder) == page(folder) == (folder / "report.html").read_text()


def test_ids_are_unique_where_something_refers_to_them(written):
    parsed = Parsed((written() / "report.html").read_text())
    ids = {value for name, value in parsed.attributes if name == "id"}
    used = {value[1:] for name, value in parsed.attributes if name == "xlink:href"}
    used |= set(re.findall(r"url\(#(\w+)\)", " ".join(value or "" for _, value in parsed.attributes)))
    assert used <= ids


HOSTILE = (
    "</bdi><script>alert('x')</script><img src=x onerror=\"y\"> &amp; $style ${body} \u202eevil \x1b[31m \x00 שלום"
)


def hostile_run(folder):
    turns = [{"role": "user", "content": HOSTILE}, {"role": HOSTILE, "content": HOSTILE}]
    rows = [json.dumps({"dialogs": turns, "_id": HOSTILE, "source": HOSTILE}).encode()] * 14
    facts = run_facts(rows, labels=(HOSTILE, HOSTILE + "2", HOSTILE + "3"))
    finished_run(
        folder,
        facts,
        page,
        name=HOSTILE,
        pool=FakePool(rows, source_names=(HOSTILE,)),
        encoded=replace(facts.encoded, dropped={HOSTILE: 3}),
        command=HOSTILE,
        config={HOSTILE: HOSTILE, "sampler": HOSTILE},
        devices={"count": 1, "kind": HOSTILE, "platform": HOSTILE, "processes": 1, "mesh": {HOSTILE: 1}},
        graph={HOSTILE: [HOSTILE]},
        timings={HOSTILE: 1.0},
        notes=(HOSTILE,),
        selection=replace(facts.selection, reason=HOSTILE),
    )


def test_hostile_text_is_only_text(tmp_path):
    hostile_run(tmp_path)
    for text in ((tmp_path / "report.html").read_text(), comparison_page(compare([tmp_path, tmp_path]), tmp_path)):
        parsed = Parsed(text)
        assert not parsed.tags & {"script", "img"}
        assert not any(name.startswith("on") for name, _ in parsed.attributes)
        assert "alert('x')" in "".join(parsed.text)  # it is shown, as text
        assert "${body}" in "".join(parsed.text)  # the template's own marks too
        for forbidden in ("\x1b", "\x00", "\u202e"):
            assert forbidden not in text
        assert "␛[31m" in text and "⟨U+202E⟩" in text and "שלום" in text


def test_page_of_a_run_that_knows_little(tmp_path):
    """No labels, scores, sources, gains, baseline or certificate; one pick."""
    facts = run_facts([row(at, source=None) for at in range(14)])
    encoded = replace(
        facts.encoded,
        labels=(),
        label_idx=np.zeros(0, np.int32),
        label_ptr=np.zeros(13, np.int64),
        score=np.zeros(12),
        dropped={},
    )
    one = replace(facts.selection, points=facts.selection.points[:1], gains=np.zeros(1), rounds={})
    finished_run(
        tmp_path,
        facts,
        page,
        encoded=encoded,
        selection=one,
        budgets=(1,),
        objective=np.array([float("nan")]),
        random_objective={},
        certificate={1: {"bound": float("inf"), "ratio": float("nan")}},
        labels_earned=(),
        runners_up=RunnersUp.none(),
        graph={},
        timings={},
        config={},
    )
    text = (tmp_path / "report.html").read_text()
    Parsed(text)
    assert "nan" not in re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL).lower()


def test_page_of_an_empty_selection(tmp_path):
    facts = run_facts()
    none = replace(facts.selection, points=np.zeros(0, np.int64), gains=np.zeros(0))
    finished_run(tmp_path, facts, page, selection=none, objective=np.zeros(0), labels_earned=())
    Parsed((tmp_path / "report.html").read_text())


def test_several_budgets_have_a_table(written):
    text = (written(budgets=(2, 5)) / "report.html").read_text()
    assert "Budget" in "".join(Parsed(text).text)


def test_reasons_limits_and_memory_are_shown(written):
    facts = run_facts()
    why = ("<i>pass 1", *["best of cluster 7"] * 4)
    folder = written(
        selection=replace(facts.selection, why=why),
        limits={"tokens": 900},
        memory={"peak_bytes": 3 << 29, "since": "run"},
    )
    text = (folder / "report.html").read_text()
    assert "With why each was taken and the labels" in text
    assert "<b>&lt;i&gt;pass 1</b>" in text and text.count("best of cluster 7") == 4
    assert "<h3>Limits</h3>" in text and "1.5 GiB" in text


def test_a_pool_without_labels_is_noted(written):
    facts = run_facts()
    bare = replace(facts.encoded, labels=(), label_idx=np.zeros(0, np.int32), label_ptr=np.zeros(13, np.int64))
    text = (written(encoded=bare, labels_earned=(), runners_up=RunnersUp.none()) / "report.html").read_text()
    assert text.count("no labels: E(D) is not known") == 2
    for words in ("Labels covered", "random pick", "of the optimum", "E of the empty set"):
        assert words not in text, words


def test_fewer_rows_than_asked_for(written):
    text = (written(budgets=(9,), random_objective={5: 14.0, 9: 17.0}) / "report.html").read_text()
    assert "of 12 usable; 9 were requested" in text
    assert "1.50 × a random pick of as many" in text  # 21 against the 14 of five rows, not of nine


def test_a_folder_that_is_no_whole_run(written, tmp_path):
    with pytest.raises(UserError, match="holds no manifest"):
        load_run(tmp_path)
    for name in ("trace.parquet", "pool_stats.json"):
        folder = written(name.split(".")[0])
        (folder / name).write_bytes(b"")
        with pytest.raises(UserError, match="not a whole run"):
            page(folder)
        pq.write_table(pa.table({"row": [1]}), folder / "trace.parquet")
        with pytest.raises(UserError, match="not a whole run"):
            page(folder)
        (folder / name).unlink()
        with pytest.raises(UserError, match="not a whole run"):
            page(folder)
