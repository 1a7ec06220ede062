"""The page of annotated rows is made from its folder alone, says what the rows were given, and a pool is only text."""

import json
import math
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fake_annotation import annotation, counted, helped, judged, row, scored, tagged
from test_selection_page import HOSTILE, Parsed

from mig_jax.commands.annotate import instag, nearest
from mig_jax.commands.annotate.annotator import Annotation
from mig_jax.commands.annotate.stats import BINS, SCORES, histogram, spread, tags_histogram
from mig_jax.core.errors import UserError
from mig_jax.report.annotation_page import load_annotation, page
from mig_jax.report.charts import count_bars
from mig_jax.report.charts import histogram as chart_of
from mig_jax.report.scales import even_ticks, log_ticks

ROWS = 40
PASS = {
    "texts": 37, "tokens": 12345, "batches": 3, "computed": 12345, "seconds": 4.25, "tokens_per_s": 2904.7,
    "rows_per_s": 70.6, "flops_per_s": 86.4e9, "share_of_matmul": 0.784,
}  # fmt: skip


def spoken() -> dict[str, list[Annotation]]:
    """Of 40 rows: 6 have no tag, 4 an IFD above 1, and some are refused."""
    said: dict[str, list[Annotation]] = {name: [] for name in ("tags", "deita", "ifd", "car", "tokens")}
    for at in range(ROWS):
        said["tags"].append(tagged(*["law", "music", "chess"][: at % 5 and 1 + at % 3]))
        said["deita"].append(judged([2.5, 3.5], [4.0, 5.0 - at % 2]))
        said["ifd"].append(helped(0.5 + at * 0.015))
        said["car"].append(scored(-1.0, at / 10))
        said["tokens"].append(counted(10 + at * at))
    said["tags"][5], said["tags"][10] = tagged("zither"), tagged("banjo")  # on one row each
    said["ifd"][6] = Annotation({}, "the answer is empty")
    said["ifd"][30] = Annotation({}, "the answer is empty")
    said["deita"][7] = Annotation({}, "the logits of the digits are not finite: turn 2's quality")
    return said


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [*map(row, range(ROWS)), "[1, 2]", '{"dialogs": [']
    return annotation(tmp_path / "run", lines, spoken(), notes=["tags: 3 of 40 rows were cut"])


def said_on(text: str) -> str:
    """The text of the page, on one line."""
    return " ".join("".join(part if part.strip() else " " for part in Parsed(text).text).split())


def stats_of(folder: Path) -> dict:
    return json.loads((folder / "annotation_stats.json").read_text())


def change(file: Path, *path: str | int, to) -> None:
    content = inner = json.loads(file.read_text())
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    file.write_text(json.dumps(content))


def test_the_page_says_what_the_rows_were_given(folder: Path):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["annotators"]["tags"] |= {"vocabulary": 4531, "jobs": {"tags": PASS}}
    manifest["annotators"]["deita"]["jobs"] = {"quality": PASS | {"computed": 0, "tokens": 777}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    text = page(folder)
    parsed, said = Parsed(text), said_on(text)
    for words in (
        "run · " + manifest["finished"][:10],
        "40 of 42 rows of run.jsonl, given Tags, DEITA, IFD, CaR and Tokens; 2 are no JSON objects",
        "tags: 3 of 40 rows were cut",
        "38of 40 rows; 2 refused",
        "the answer is empty",
        "turn 2's quality",
        "5 labels of a vocabulary of 4,531 are on some row, 2 of them on one alone",
        "40 of 42",
        "6 rows without any",
        "Below 1 the instruction helps to predict the answer",
        "half of the rows from",
        "12 rows to judge by eye",
        "mig-jax annotate p.jsonl",
        "12,345", "70.6", "2,905", "86.4", "78 %", "777", "in an earlier run",
    ):  # fmt: skip
        assert words in said, words
    wheres = re.findall(r"run\.jsonl:\d+", said[said.index("What was refused") : said.index("Labels")])
    assert [where.partition(":")[2] for where in wheres] == ["8", "7", "31", "41", "42"]
    assert not parsed.tags & {"script", "link", "img", "iframe", "object"}
    assert not [value for name, value in parsed.attributes if name in ("href", "src", "xlink:href", "action")]
    assert "http" not in text.replace("http-equiv", "") and "url(" not in text
    assert '<meta name="generator" content="mig_jax annotation">' in text


NUMBERS = [
    ("manifest.json", ("n",)), ("manifest.json", ("pool_rows",)), ("manifest.json", ("rejected",)),
    ("manifest.json", ("annotators", "ifd", "annotated")),
    ("manifest.json", ("annotators", "ifd", "refused", "the answer is empty")),
    *[("manifest.json", ("annotators", "tags", "jobs", "tags", key)) for key in ("texts", "tokens", "tokens_per_s")],
    *[("manifest.json", ("annotators", "tags", "jobs", "tags", key)) for key in ("computed", "rows_per_s")],
    ("manifest.json", ("annotators", "tags", "vocabulary")),
    ("annotation_stats.json", ("refused", "ifd", 0, "rows")), ("annotation_stats.json", ("rejected", "rows")),
    *[("annotation_stats.json", ("labels", key)) for key in ("total", "once")],
    ("annotation_stats.json", ("labels", "top", 1, "rows")),
    *[("annotation_stats.json", ("tags", key)) for key in ("mean", "above")],
    ("annotation_stats.json", ("tags", "counts", 1)),
    *[("annotation_stats.json", ("scores", "ifd", key)) for key in ("mean", "above_one", "below", "above")],
    *[("annotation_stats.json", ("scores", name, "counts", 0)) for name in ("ifd", "quality", "car", "tokens")],
    *[("annotation_stats.json", ("scores", "tokens", "quartiles", part)) for part in (1, 2, 3)],
    ("annotation_stats.json", ("scores", "car", "not_finite")),
    ("annotation_stats.json", ("samples", 3, "scores", "complexity")),
    ("annotation_stats.json", ("samples", 3, "line")),
]  # fmt: skip


@pytest.mark.parametrize(("file", "path"), NUMBERS, ids=lambda part: ".".join(map(str, part)) if part[1:] else "")
def test_every_number_comes_from_the_files(folder: Path, file: str, path: tuple):
    change(folder / "manifest.json", "annotators", "tags", "jobs", to={"tags": PASS | {"tokens": 99999}})
    assert "8,765" not in page(folder)
    change(folder / file, *path, to=8765)
    assert "8,765" in page(folder)


def test_what_is_counted(folder: Path):
    stats, said = stats_of(folder), spoken()
    tags = [one.values[nearest.TAGS] for one in said["tags"]]
    assert stats["rows"] == ROWS and stats["rejected"]["rows"] == 2
    assert stats["tags"]["counts"] == [sum(len(of) == k for of in tags) for k in range(4)]
    assert stats["tags"]["mean"] == sum(map(len, tags)) / ROWS
    used = Counter(label for of in tags for label in of)
    assert stats["labels"]["top"] == [
        {"name": name, "rows": many} for name, many in sorted(used.items(), key=lambda item: (-item[1], item[0]))
    ]
    scores = stats["scores"]
    assert scores["complexity"]["mean"] == 3.0 and scores["complexity"]["rows"] == ROWS - 1
    assert scores["complexity"]["quartiles"] == [3.0] * 5  # the means of 2.5 and 3.5
    assert scores["quality"]["quartiles"] == [4.0, 4.0, 4.5, 4.5, 4.5]
    ratios = [0.5 + at * 0.015 for at in range(ROWS) if at not in (6, 30)]
    assert scores["ifd"]["mean"] == math.fsum(ratios) / len(ratios)
    assert scores["ifd"]["above_one"] == sum(ratio > 1 for ratio in ratios)
    for name, found in scores.items():
        assert sum(found["counts"]) + found["below"] + found["above"] == found["rows"], name
    refused = stats["refused"]
    assert refused["tags"] == [] and [one["rows"] for one in refused["ifd"]] == [2]
    assert refused["ifd"][0]["examples"][1]["line"] == 31 and refused["ifd"][0]["examples"][1]["id"] == "id30"
    sample = stats["samples"][2]
    assert (sample["line"], sample["asked"], sample["answered"]) == (9, "Why? 8", "Because.")
    assert sample["tags"] == ["law", "music", "chess"] and sample["scores"]["car"] == (-1 + 0.8) / 2


def test_the_same_rows_give_the_same_bytes(folder: Path, tmp_path: Path):
    """Of the statistics, also under another hash seed; of the page, from the same files wherever they lie."""
    code = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1] / "select")]!r}
from pathlib import Path
from fake_annotation import annotation, row
from test_annotation_page import spoken
annotation(Path(sys.argv[1]) / "run", [*map(row, range(40)), "[1, 2]", '{{"dialogs": ['], spoken())
"""
    other = tmp_path / "other"
    other.mkdir()
    subprocess.run([sys.executable, "-c", code, other], check=True, env={"PYTHONHASHSEED": "7", "PATH": ""})
    written = (folder / "annotation_stats.json").read_text()
    again = (other / "run/annotation_stats.json").read_text()
    assert again.replace(f"{other}/", "") == written.replace(f"{tmp_path}/", "")
    assert not re.search(r"second|time|finished", written)
    text = page(folder)
    assert text == page(folder) == (folder / "report.html").read_text()
    assert text == page(folder.rename(tmp_path / "moved"))
    listed = json.loads((tmp_path / "moved/manifest.json").read_text())["files"]
    assert {"annotation_stats.json", "pool.jsonl", "refused.jsonl", "rejects.jsonl"} <= listed.keys()


def test_hostile_text_is_only_text(tmp_path: Path):
    said = {
        "tags": [tagged(HOSTILE), Annotation({instag.RAW: HOSTILE}, f"{HOSTILE}: {HOSTILE}"), tagged(HOSTILE)],
        "ifd": [Annotation({}, HOSTILE)] * 3,
    }
    lines = [row(at, HOSTILE, HOSTILE, _id=HOSTILE) for at in range(3)]
    folder = annotation(tmp_path / "run", lines, said, notes=[HOSTILE], command=HOSTILE, timings={HOSTILE: 1.0})
    change(folder / "manifest.json", "config", to={"out": HOSTILE, HOSTILE: HOSTILE})
    change(folder / "manifest.json", "inputs", 0, "path", to=HOSTILE)
    change(
        folder / "manifest.json", "annotators", to={HOSTILE: {"annotated": 1, "refused": {}, "jobs": {HOSTILE: PASS}}}
    )
    change(folder / "annotation_stats.json", "samples", 0, "where", to=HOSTILE)
    change(folder / "annotation_stats.json", "refused", "tags", 0, "examples", 0, "where", to=HOSTILE)
    change(folder / "annotation_stats.json", "samples", 0, "scores", to={HOSTILE: 1.0})
    change(
        folder / "annotation_stats.json",
        "rejected",
        to={"rows": 1, "examples": [{"where": HOSTILE, "reason": HOSTILE}]},
    )
    text = page(folder)
    parsed = Parsed(text)
    assert not parsed.tags & {"script", "img"}
    assert not any(name.startswith("on") for name, _ in parsed.attributes)
    assert "".join(parsed.text).count("alert('x')") > 20 and "${body}" in "".join(parsed.text)
    for forbidden in ("\x1b", "\x00", "\u202e"):
        assert forbidden not in text
    assert "␛[31m" in text and "⟨U+202E⟩" in text and "שלום" in text


LITTLE = {
    "no annotators": (0, {}),
    "no rows": (0, {"tags": [], "ifd": [], "tokens": []}),
    "empty": (1, {"tags": [tagged()], "tokens": [counted(0)], "deita": [judged([], [])]}),
    "refused": (1, {name: [Annotation({}, "no user turn")] for name in ("tags", "deita", "ifd", "car", "tokens")}),
    "constant": (3, {"ifd": [helped(0.75)] * 3, "car": [scored(2.0)] * 3, "tokens": [counted(5)] * 3}),
    "nan": (3, {"ifd": [helped(math.nan), helped(0.5), helped(0.7)], "car": [scored(math.nan)] * 3}),
    "huge": (2, {"ifd": [helped(1e308), helped(1.7e308)], "car": [scored(math.inf, -math.inf)] * 2}),
    "wide": (2, {"ifd": [helped(1.0)] * 2, "tokens": [counted(10**15), counted(0)]}),
    "nearly constant": (2, {"ifd": [helped(1 + 1e-15), helped(1.0)], "car": [scored(1e17), scored(1e17 + 16)]}),
    "many tags": (1, {"tags": [tagged(*map(str, range(90)))]}),
}


@pytest.mark.parametrize(("rows", "said"), LITTLE.values(), ids=LITTLE)
def test_pages_of_runs_with_little_to_show(tmp_path: Path, rows: int, said: dict[str, list[Annotation]]):
    lines = map(row, range(max(rows, 1)))
    text = (annotation(tmp_path / "run", lines, said, most=rows) / "report.html").read_text()
    Parsed(text)
    assert not re.search(r"\b(nan|inf)\b", re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL).lower())


def test_constant_scores_are_told_and_not_drawn(tmp_path: Path):
    said = {"ifd": [helped(0.75)] * 3, "car": [scored(math.nan), scored(2.0), scored(3.0)]}
    text = said_on((annotation(tmp_path / "run", map(row, range(3)), said) / "report.html").read_text())
    assert "Below 1 the instruction helps to predict the answer; 0.750 on every row" in text
    assert "1 row without a finite number" in text


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", SCORES.values())
def test_a_histogram_holds_every_row(seed: int, name: str):
    """In any order; outliers hide nothing, and few of them are left out."""
    rng = np.random.default_rng(seed)
    n = [1, 2, 7, 199, 2000, 20000][seed]
    draws = [rng.normal(3, 0.5, n), rng.lognormal(0, 2, n), rng.integers(0, 3, n) * 1.0, rng.standard_cauchy(n)]
    for values in draws:
        value_n = np.abs(np.round(values * 100)) if name == "tokens" else values
        found = histogram(name, value_n)
        assert found == histogram(name, value_n[::-1]) == histogram(name, rng.permutation(value_n))
        edges, counts = np.array(found["edges"]), np.array(found["counts"])
        assert (np.diff(edges) > 0).all() and len(edges) == len(counts) + 1 <= 2 * BINS + 3
        assert counts.sum() + found["below"] + found["above"] == n == found["rows"]
        assert found["below"] <= n // 200 and found["above"] <= n // 200
        for left, right, many in zip(edges[:-1], edges[1:], counts, strict=True):
            last = right == edges[-1]
            assert many == ((value_n >= left) & ((value_n < right) | (last & (value_n == right)))).sum()
        if name == "ifd":
            assert found["edges"][0] <= 1 <= found["edges"][-1]
            assert found["above_one"] == (value_n > 1).sum()
        assert found["quartiles"][0] == value_n.min() and found["quartiles"][4] == value_n.max()


def test_far_outliers_do_not_flatten_the_picture():
    values = np.concatenate([np.linspace(0.2, 1.1, 1000), [400.0]])
    found = histogram("ifd", values)
    assert found["above"] == 1 and found["edges"][-1] < 2 and found["quartiles"][4] == 400
    assert len([many for many in found["counts"] if many]) > 15


def test_round_numbers_hold_what_lies_on_and_beside_them():
    """Quotients are rounded across whole numbers: no row may fall out at the ends, and no empty bin be added there."""
    for at in range(-60, 60):
        for off in (0.0, 1e-16, -1e-16, 5e-4, -5e-4):
            found = histogram("car", np.array([at / 10 + off, at / 10 + 0.7, at / 10 + 2.9 - off]))
            assert found["below"] == found["above"] == 0 and sum(found["counts"]) == 3
            assert found["counts"][0] and found["counts"][-1]


def test_a_mean_is_exactly_rounded():
    assert histogram("car", np.array([1e16, 1.0, -1e16]))["mean"] == 1 / 3


def test_samples_are_spread_over_all_rows():
    assert spread(0, 12) == [] and spread(3, 12) == [1, 2, 3]
    assert spread(12, 12) == list(range(1, 13)) and spread(24, 12) == list(range(2, 25, 2))
    for rows in (13, 100, 10**6):
        found = spread(rows, 12)
        gaps = np.diff([1 - found[0], *found])
        assert found == sorted(set(found)) and found[0] >= 1 and found[-1] <= rows
        assert gaps[1:].max() - gaps[1:].min() <= 1 and abs((rows - found[-1]) - (found[0] - 1)) <= 1


def test_numbers_of_tags():
    assert tags_histogram(Counter()) is None
    found = tags_histogram(Counter({0: 2, 3: 5, 90: 1}))
    assert found is not None and found["counts"][:5] == [2, 0, 0, 5, 0] and found["above"] == 1
    assert found["rows"] == 8 and found["mean"] == (15 + 90) / 8


def test_bars_have_their_counts_and_ifd_its_mark():
    chart = chart_of([0.0, 0.5, 1.0, 1.5], "IFD", bars=[3, 0, 1], mark=1.0)
    bars = [shape for shape in chart.shapes if shape.tag == "rect"]
    assert [bar.title for bar in bars] == ["0 to 0.500: 3 rows", "1 to 1.50: 1 row"]
    (mark,) = [shape for shape in chart.shapes if shape.attributes.get("class") == "mark"]
    at = float(str(mark.attributes["d"])[1:].split()[0])
    assert abs(at - float(bars[1].attributes["x"])) < 1  # the bar above 1 begins at the line
    outside = chart_of([0.0, 0.5], "IFD", bars=[3], mark=1.0)
    assert not [shape for shape in outside.shapes if shape.attributes.get("class") == "mark"]
    counted_ = count_bars([4, 0, 2], "tags")
    assert [shape.title for shape in counted_.shapes if shape.tag == "rect"] == ["0: 4 rows", "2: 2 rows"]
    assert even_ticks(0.3, 1.1, 4) == [0.4, 0.6, 0.8, 1.0] and even_ticks(-1, 1, 2) == [-1.0, 0.0, 1.0]
    assert log_ticks(3, 2000) == [5, 10, 20, 50, 100, 200, 500, 1000, 2000]


def test_folders_that_hold_no_annotation(folder: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"holds no manifest\.json"):
        load_annotation(tmp_path)
    (folder / "annotation_stats.json").write_text("[]")
    with pytest.raises(UserError, match=r"run is not a whole run: annotation_stats\.json"):
        page(folder)
    (folder / "annotation_stats.json").unlink()
    with pytest.raises(UserError, match=r"run is not a whole run: .*annotation_stats\.json"):
        page(folder)
    (folder / "manifest.json").write_text(
        '{"schema": 1, "kind": "embed", "run_key": "k", "command": "mig-jax embed x"}'
    )
    with pytest.raises(UserError, match="a run of mig-jax embed, not of mig-jax annotate"):
        page(folder)
