"""``mig-jax report``: finished runs again: one as its page, several as one comparison. Nothing is computed anew."""

import csv
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mig_jax.commands.annotate.summary import KIND as ANNOTATE
from mig_jax.commands.annotate.summary import summary as annotate_summary
from mig_jax.commands.report.config import ReportConfig
from mig_jax.core.errors import UserError
from mig_jax.core.text import visible
from mig_jax.report import Comparison, RunView, compare, load_run
from mig_jax.report.comparison import LEADING, left_out_note
from mig_jax.report.comparison_page import KIND
from mig_jax.runs.manifest import MANIFEST, REPORT, read_manifest

COMPARISON = "comparison.html"
VOCABULARY = "vocabulary"  # a run's kind, as mig_jax.commands.vocabulary.show has it
HEAD = 4096  # characters in which a page names its kind


@dataclass(frozen=True)
class Found:
    """The runs that were asked for.

    Args:
      runs: their folders.
      read: those of them that have been, by their folders.
      broken: of runs inside a folder that cannot be read, where each is and what is wrong with it.
    """

    runs: list[Path]
    read: dict[Path, RunView]
    broken: list[str]


def run_report(config: ReportConfig, width: int) -> str:
    """Do it: what to print, in at most ``width`` columns.

    Raises:
      UserError: no run, a path that is none, a run that is not whole, a file in the way.
    """
    found = find_runs(config.runs)
    out = None if config.out is None else _page_file(config.out)
    if len(found.runs) == 1:
        note = f"note: {visible(left_out_note(found.broken))}\n" if found.broken else ""
        return _one(found.runs[0], out, config, width) + note
    target = out or _common(found.runs) / COMPARISON
    table = target.with_suffix(".csv")
    if not config.overwrite:
        for file, ours in ((target, _is_page), (table, _is_table)):
            if file.exists() and not ours(file):
                raise UserError(f"{file} exists and is no comparison of mig-jax; overwrite=true replaces it")
    both = compare([found.read.get(run, run) for run in found.runs], found.broken)
    _write(target, both.html(target.parent))
    _write(table, both.csv())
    return _told(both, width, target, table)


def find_runs(named: Sequence[str]) -> Found:
    """The runs that are named, each once: their own folders, or all inside a folder, in natural order.

    Raises:
      UserError: nothing is named, or something that is no run and holds none; none can be read.
    """
    if not named:
        raise UserError("name the runs: mig-jax report RUN [RUN ...], each the folder of a run, or of a sweep")
    runs: dict[Path, Path] = {}  # by where they really are
    read: dict[Path, RunView] = {}
    broken: dict[Path, str] = {}
    for name in named:
        inside, folders = _runs_of(Path(name).expanduser(), name)
        for run in folders:
            place = run.resolve()
            if inside and place not in runs:
                try:
                    read[run] = load_run(run)
                except UserError as error:
                    broken[place] = str(error)
                    continue
            runs.setdefault(place, run)  # one that is named and cannot be read is an error later
    if not runs:
        raise UserError(f"no run in {', '.join(named)} can be read: {'; '.join(broken.values())}")
    return Found(list(runs.values()), read, list(broken.values()))


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
        read_manifest(path)
        return False, [path]
    kinds = sorted(_inside(path), key=lambda item: natural(os.path.relpath(item[0], path)))
    runs = [run for run, kind in kinds if kind is None]
    if not runs:
        told = [(run, kind) for run, kind in kinds if kind in (ANNOTATE, VOCABULARY)]
        more = "; name {} itself to see what mig-jax {} made".format(*told[0]) if told else ""
        raise UserError(f"{name} holds no finished selection, neither itself nor in the folders inside it{more}")
    return True, runs


def _inside(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """Folders of runs below this one, and the kind of each: None for selections, and for what cannot be read.

    Those under way are hidden; a manifest of another program is none.
    """
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if MANIFEST not in files:
            continue
        try:
            manifest = json.loads((Path(place) / MANIFEST).read_bytes())
        except (OSError, ValueError, RecursionError):
            manifest = {"run_key": ""}
        if isinstance(manifest, dict) and "run_key" in manifest:
            yield Path(place), str(manifest["kind"]) if "kind" in manifest else None
            if "kind" not in manifest:
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
        raise UserError(f"out={name}: must end in .html")
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise UserError(f"out={name}: {'is a folder' if out.is_dir() else f'there is no folder {out.parent}'}")
    return out


def _one(run: Path, out: Path | None, config: ReportConfig, width: int) -> str:
    """One run: its page written to ``out``, or what it is and where its page lies."""
    kind = read_manifest(run).get("kind")
    if kind == VOCABULARY:
        from mig_jax.commands.vocabulary.show import summary  # the package needs JAX

        if out is not None:
            raise UserError(f"out={config.out}: {run} holds a vocabulary, which has no page; leave it out")
        return summary(run)
    annotated = kind == ANNOTATE
    if out is not None:
        if out.exists() and not config.overwrite:
            raise UserError(f"out={config.out}: exists; overwrite=true replaces it")
        if annotated:
            from mig_jax.report.annotation_page import page
        else:
            from mig_jax.report import page  # matplotlib

        _write(out, page(run))
        return f"report  {out}\n"
    from mig_jax.report import summary_text
    from mig_jax.report.annotation_page import load_annotation

    view = load_annotation(run) if annotated else load_run(run)
    if not (run / REPORT).is_file():
        raise UserError(f"{run / REPORT} is gone; out={run / REPORT} writes it again")
    if annotated:
        return annotate_summary(view.manifest, str(run)) + "\n"
    return summary_text(view.manifest, view.stats, run, width)


def _told(both: Comparison, width: int, *files: Path) -> str:
    return (
        both.text(width)
        + "\n"
        + "".join(f"{what:<9}{file}\n" for what, file in zip(("report", "table"), files, strict=True))
    )


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


def _write(file: Path, text: str) -> None:
    """All of it or nothing."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
