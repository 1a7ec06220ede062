"""``mig-jax report``: finished runs again: one as its page, several as one comparison. Nothing is computed anew."""

import csv
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from mig_jax.config import ReportConfig
from mig_jax.errors import UserError
from mig_jax.export import MANIFEST, REPORT, read_manifest
from mig_jax.report import Comparison, compare
from mig_jax.report.comparison import LEADING
from mig_jax.report.comparison_page import KIND

COMPARISON = "comparison.html"
HEAD = 4096  # characters in which a page names its kind


def run_report(config: ReportConfig, width: int) -> str:
    """Do it: what to print, in at most ``width`` columns.

    Raises:
      UserError: no run, a path that is none, a run that is not whole, a file in the way.
    """
    found = find_runs(config.runs)
    out = None if config.out is None else _page_file(config.out)
    if len(found) == 1:
        return _one(found[0], out, config, width)
    target = out or _common(found) / COMPARISON
    table = target.with_suffix(".csv")
    if not config.overwrite:
        for file, ours in ((target, _is_page), (table, _is_table)):
            if file.exists() and not ours(file):
                raise UserError(f"{file} exists and is no comparison of mig-jax; overwrite=true replaces it")
    both = compare(found)
    _write(target, both.html(target.parent))
    _write(table, both.csv())
    return _told(both, width, target, table)


def find_runs(named: Sequence[str]) -> list[Path]:
    """The folders of the runs that are named, each once: their own, or all inside a folder, in natural order.

    Raises:
      UserError: nothing is named, or something that is no run and holds none.
    """
    if not named:
        raise UserError("name the runs: mig-jax report RUN [RUN ...], each the folder of a run, or of a sweep")
    found: dict[Path, Path] = {}
    for name in named:
        path = Path(name).expanduser()
        for run in _runs_of(path, name):
            found.setdefault(run.resolve(), run)
    return list(found.values())


def _runs_of(path: Path, name: str) -> list[Path]:
    if not path.exists():
        raise UserError(f"{name}: there is no such folder")
    if path.name == MANIFEST and path.is_file():
        path = path.parent
    elif not path.is_dir():
        near = next((str(folder) for folder in (path.parent, Path(f"{path}.run")) if (folder / MANIFEST).is_file()), "")
        raise UserError(f"{name} is not the folder of a run, nor its {MANIFEST}{f'; {near} is one' if near else ''}")
    if (path / MANIFEST).exists():
        read_manifest(path)
        return [path]
    runs = sorted(_inside(path), key=lambda run: natural(os.path.relpath(run, path)))
    if not runs:
        raise UserError(f"{name} holds no finished run, neither itself nor in the folders inside it")
    return runs


def _inside(folder: Path) -> list[Path]:
    """Folders of selections below this one. Those under way are hidden; a manifest of another program is none."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if MANIFEST in files and _is_selection(Path(place)):
            found.append(Path(place))
            folders.clear()
    return found


def _is_selection(folder: Path) -> bool:
    """Whether its manifest is a selection's; one that cannot be read raises UserError."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError):
        manifest = {"run_key": ""}
    if not isinstance(manifest, dict) or "run_key" not in manifest or "kind" in manifest:  # kind: embeddings
        return False
    read_manifest(folder)  # says what is wrong with it
    return True


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
    if out is not None:
        if out.exists() and not config.overwrite:
            raise UserError(f"out={config.out}: exists; overwrite=true replaces it")
        from mig_jax.report import page

        _write(out, page(run))
        return f"report  {out}\n"
    from mig_jax.report import load_run, summary_text

    view = load_run(run)
    if not (run / REPORT).is_file():
        raise UserError(f"{run / REPORT} is gone; out={run / REPORT} writes it again")
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
