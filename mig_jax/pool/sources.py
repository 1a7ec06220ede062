"""Resolve ``pool.path`` to a list of files: names, folders, globs, lists and ``hf:`` data sets."""

import difflib
import glob
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mig_jax.core.errors import UserError

FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet"}
COMPRESSIONS = {".gz": "gz", ".zst": "zst"}
KNOWN = ", ".join(FORMATS) + " (each also with " + " or ".join(COMPRESSIONS) + ")"
HF = "hf:"
MANIFEST, ANNOTATE, ANNOTATED = (
    "manifest.json",
    "annotate",
    "pool.jsonl",
)  # files in an output folder of mig-jax annotate
_LARGEST_MANIFEST = 64 << 20  # bytes; a larger manifest.json is a pool of that name


class Source(NamedTuple):
    """One file, or one ``hf:`` data set.

    Args:
      path: the file's path, or the whole ``hf:`` name.
      format: ``jsonl``, ``json``, ``parquet`` or ``hf``, by the file name only.
      compression: ``""``, ``gz`` or ``zst``.
    """

    path: str
    format: str
    compression: str


def resolve(path: str | Path | Sequence[str | Path]) -> list[Source]:
    """The sources of ``path``, in order (the files of folders and globs are sorted by path).

    Raises:
      UserError: no such file, an unknown suffix, a folder without pool files, the same file twice.
    """
    paths = [path] if isinstance(path, str | Path) else list(path)
    if not paths:
        raise UserError("an empty list; give at least one file, folder, glob or hf:org/name", key="pool.path")
    sources = [source for each in paths for source in _expand(each)]
    seen: dict[str, str] = {}
    for source in sources:
        identity = source.path if source.format == "hf" else str(Path(source.path).resolve())
        if identity in seen:
            raise UserError(
                f"{source.path} is given twice (also as {seen[identity]}); every row would count twice", key="pool.path"
            )
        seen[identity] = source.path
    return sources


def _expand(path: str | Path) -> Iterator[Source]:
    name = str(path)
    if not name.strip():
        raise UserError("an empty name; give a file, a folder, a glob or hf:org/name", key="pool.path")
    if name.startswith(HF):
        if len(name) == len(HF):
            raise UserError("hf: needs a data set, for instance hf:org/name or hf:org/name:split", key="pool.path")
        yield Source(name, "hf", "")
        return
    entry = Path(name)
    if entry.is_dir():
        yield from _in_folder(entry)
    elif entry.exists():
        source = classify(name)
        if source is None:
            raise UserError(f"unknown suffix; known: {KNOWN}", where=name)
        if not entry.is_file():
            raise UserError("not a regular file; a pool is read more than once, so save the rows to a file", where=name)
        yield source
    elif glob.has_magic(name):
        # Path.glob does not accept an absolute pattern.
        files = sorted(file for file in glob.glob(name, recursive=True) if Path(file).is_file())  # noqa: PTH207
        known = [source for source in map(classify, files) if source]
        if not known:
            problem = f"matches {len(files)} files, none of them" if files else "matches no file; looked for"
            raise UserError(f"{name} {problem} {KNOWN}", key="pool.path")
        yield from known
    else:
        raise _missing(entry)


def _in_folder(folder: Path) -> Iterator[Source]:
    # Hidden files and folders (.cache, .git, .ipynb_checkpoints) contain copies of visible files.
    files = [
        f for f in folder.rglob("*") if f.is_file() and not any(p.startswith(".") for p in f.relative_to(folder).parts)
    ]
    # In an output folder of mig-jax annotate only the pool counts, not its manifest or the refused rows.
    annotated = {f.parent for f in files if f.name == MANIFEST and _is_annotated(f)}
    for output in annotated:
        if output / ANNOTATED not in files:
            raise UserError(f"its {MANIFEST} is one of mig-jax annotate, but its {ANNOTATED} is missing", where=output)
    files = [f for f in files if annotated.isdisjoint(f.parents) or (f.name == ANNOTATED and f.parent in annotated)]
    known = [source for source in (classify(str(f)) for f in sorted(files)) if source]
    if not known:
        names = ", ".join(sorted(f.name for f in files)[:5]) or "nothing"
        raise UserError(f"no pool file in this folder (found: {names}); a pool file ends in {KNOWN}", where=folder)
    yield from known


def _is_annotated(manifest: Path) -> bool:
    """Whether the file is a manifest of mig-jax annotate; False if it cannot be read."""
    try:
        content = json.loads(manifest.read_bytes()) if manifest.stat().st_size <= _LARGEST_MANIFEST else None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("kind") == ANNOTATE


def classify(name: str) -> Source | None:
    """The source of a file name, by its suffixes; None if they are unknown."""
    stem, compression = Path(name.lower()), ""
    if stem.suffix in COMPRESSIONS:
        compression, stem = COMPRESSIONS[stem.suffix], stem.with_suffix("")
    kind = FORMATS.get(stem.suffix)
    return Source(name, kind, compression) if kind else None


def _missing(path: Path) -> UserError:
    parent = path.parent
    if not parent.is_dir():
        return UserError(f"no such file, and no folder {parent}", where=path)
    names = [f.name for f in parent.iterdir()]
    close = difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
    close += [n for n in names if n.startswith(path.name + ".") and n not in close][:3]
    hint = f"; similar names: {', '.join(close)}" if close else ""
    return UserError(f"no such file or folder{hint}", where=path)
