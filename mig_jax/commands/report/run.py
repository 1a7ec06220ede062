"""``mig-jax report``: finished runs again: one as its page, several as one comparison. Nothing is computed anew."""

import csv
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mig_jax.commands.annotate.summary import summary as annotation_summary
from mig_jax.commands.call import Call
from mig_jax.commands.report.config import ReportConfig
from mig_jax.core.errors import UserError
from mig_jax.core.files import write_atomic
from mig_jax.core.text import visible
from mig_jax.report import Comparison, RunView, compare, load_run, summary_text
from mig_jax.report import page as selection_page
from mig_jax.report.annotation_page import load_annotation
from mig_jax.report.annotation_page import page as annotation_page
from mig_jax.report.comparison import LEADING, left_out_note
from mig_jax.report.comparison_page import KIND, comparison_page
from mig_jax.runs.manifest import MANIFEST, REPORT, AnnotateManifest, EmbedManifest, read_kind, read_manifest

COMPARISON = "comparison.html"
SELECT, ANNOTATE, VOCABULARY, EMBED = "select", "annotate", "vocabulary", "embed"  # "kind" of a manifest
HEAD = 4096  # characters in which a page names its kind


@dataclass(frozen=True)
class Runs:
    """The runs that were asked for.

    Args:
      folders: of the runs.
      read: those of them that were read, by their folders.
      broken: of runs inside a folder that cannot be read, where each is and what is wrong with it.
    """

    folders: list[Path]
    read: dict[Path, RunView]
    broken: list[str]


def run(config: ReportConfig, call: Call) -> str:
    """Write the page; the text to print, in at most ``call.width`` columns.

    Raises:
      UserError: no run, a path that is none, a run that is not whole, a file in the way.
    """
    runs = find_runs(config.runs)
    out = None if config.out is None else _page_file(config.out)
    if len(runs.folders) == 1:
        note = f"note: {visible(left_out_note(runs.broken))}\n" if runs.broken else ""
        return _one(runs.folders[0], out, config, call.width) + note
    target = out or _common(runs.folders) / COMPARISON
    check_replaceable(target, config.overwrite)
    return write_comparison(compare([runs.read.get(run, run) for run in runs.folders], runs.broken), target, call.width)


def check_replaceable(page: Path, overwrite: bool = False) -> None:
    """Raises UserError where the page of a comparison, or its table, would replace a file of somebody else."""
    for file, ours in ((page, _is_page), (page.with_suffix(".csv"), _is_table)):
        if file.exists() and not overwrite and not ours(file):
            raise UserError(f"{file} exists and is no comparison of mig-jax; overwrite=true replaces it")


def write_comparison(both: Comparison, page: Path, width: int) -> str:
    """Write a comparison as a page and, beside it, as a table; the text to print, in at most ``width`` columns."""
    table = page.with_suffix(".csv")
    write_atomic(page, comparison_page(both, page.parent))
    write_atomic(table, both.csv())
    return f"{both.text(width)}\nreport   {page}\ntable    {table}\n"


def find_runs(named: Sequence[str]) -> Runs:
    """The runs that are named, each once: their own folders, or all inside a folder, in natural order.

    Raises:
      UserError: nothing is named, or something that is no run and holds none; none can be read.
    """
    if not named:
        raise UserError("name the runs: mig-jax report RUN [RUN ...], each the folder of a run, or of a sweep")
    runs: dict[Path, Path] = {}  # by their resolved paths
    read: dict[Path, RunView] = {}
    broken: dict[Path, str] = {}
    for name in named:
        inside, folders = _runs_of(Path(name).expanduser(), name)
        for run in folders:
            resolved = run.resolve()
            if inside and resolved not in runs:
                try:
                    read[run] = load_run(run)
                except UserError as error:
                    broken[resolved] = str(error)
                    continue
            runs.setdefault(resolved, run)  # one that is named and cannot be read is an error later
    if not runs:
        raise UserError(f"no run in {', '.join(named)} can be read: {'; '.join(broken.values())}")
    return Runs(list(runs.values()), read, list(broken.values()))


def _runs_of(path: Path, name: str) -> tuple[bool, list[Path]]:
    """The run that is named; or, and true, those inside the folder that is."""
    if not path.exists():
        raise UserError(f"{name}: there is no such folder")
    if path.name == MANIFEST and path.is_file():
        path = path.parent
    elif not path.is_dir():
        near = next((str(folder) for folder in (path.parent, Path(f"{path}.run")) if (folder / MANIFEST).is_file()), "")
        raise UserError(f"{name} is not the folder of a run, nor its {MANIFEST}{f'; {near} is one' if near else ''}")
    if (path / MANIFEST).exists():
        read_kind(path)
        return False, [path]
    kinds = sorted(_inside(path), key=lambda item: natural(os.path.relpath(item[0], path)))
    runs = [run for run, kind in kinds if kind == SELECT]
    if not runs:
        others = [(run, kind) for run, kind in kinds if kind in SUMMARIES]
        more = "; name {} itself to see what mig-jax {} made".format(*others[0]) if others else ""
        raise UserError(f"{name} holds no finished selection, neither itself nor in the folders inside it{more}")
    return True, runs


def _inside(folder: Path) -> Iterator[tuple[Path, str]]:
    """Folders of runs below this one, and the kind of each: "select" for what cannot be read.

    Those under way are hidden; a manifest of another program is none.
    """
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if MANIFEST not in files:
            continue
        try:
            manifest = json.loads((Path(path) / MANIFEST).read_bytes())
        except (OSError, ValueError, RecursionError):
            manifest = {"run_key": "", "kind": SELECT}
        if isinstance(manifest, dict) and manifest.keys() >= {"run_key", "kind"}:
            kind = str(manifest["kind"])
            yield Path(path), kind
            if kind == SELECT:
                folders.clear()


def natural(text: str) -> list[tuple[int, int, str]]:
    """Sorts ``run-9`` before ``run-10``."""
    parts = re.split(r"(\d+)", text)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _common(runs: Sequence[Path]) -> Path:
    """The innermost folder that holds all runs and is none of them."""
    folder = Path(os.path.commonpath([run.absolute().parent for run in runs]))
    while (folder / MANIFEST).exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return folder.relative_to(Path.cwd())
    except ValueError:
        return folder


def _page_file(name: str) -> Path:
    """Where the page goes; refused before anything is read."""
    out = Path(name).expanduser()
    if out.suffix not in (".html", ".htm"):
        raise UserError(key="out", value=name, allowed="a file that ends in .html")
    if out.is_dir() or not out.absolute().parent.is_dir():
        message = "is a folder" if out.is_dir() else f"there is no folder {out.parent}"
        raise UserError(message, key="out", value=name)
    return out


def _one(run: Path, out: Path | None, config: ReportConfig, width: int) -> str:
    """One run: its page written to ``out``, or its summary."""
    kind = read_kind(run)
    if out is None:
        return SUMMARIES.get(kind, _selection)(run, width)
    page = PAGES.get(kind)
    if page is None:
        raise UserError(f"{run} holds the files of mig-jax {kind}, which have no page; leave it out", key="out")
    if out.exists() and not config.overwrite:
        raise UserError("exists; overwrite=true replaces it", key="out", value=config.out)
    write_atomic(out, page(run))
    return f"report  {out}\n"


def _selection(run: Path, width: int) -> str:
    view = load_run(run)
    _check_page(run)
    return summary_text(view.manifest, view.stats, run, width)


def _annotation(run: Path, width: int) -> str:
    load_annotation(run)
    _check_page(run)
    return annotation_summary(read_manifest(run, AnnotateManifest), str(run)) + "\n"


def _vocabulary(run: Path, width: int) -> str:
    from mig_jax.commands.vocabulary.show import summary  # the package needs JAX

    return summary(run)


def _embeddings(run: Path, width: int) -> str:
    from mig_jax.commands.embed.files import summary  # it needs JAX

    return summary(read_manifest(run, EmbedManifest), str(run)) + "\n"


def _check_page(run: Path) -> None:
    if not (run / REPORT).is_file():
        raise UserError(f"{run / REPORT} is gone; out={run / REPORT} writes it again")


SUMMARIES: dict[str, Callable[[Path, int], str]] = {
    SELECT: _selection,
    ANNOTATE: _annotation,
    VOCABULARY: _vocabulary,
    EMBED: _embeddings,
}
PAGES: dict[str, Callable[[Path], str]] = {SELECT: selection_page, ANNOTATE: annotation_page}


def _is_page(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open(encoding="utf-8", errors="replace") as text:
        return f'<meta name="generator" content="{KIND}">' in text.read(HEAD)


def _is_table(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open(encoding="utf-8", errors="replace", newline="") as text:
        return tuple(next(csv.reader(iter(text.readline, "")), ())[: len(LEADING)]) == LEADING
