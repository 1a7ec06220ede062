"""From what the user wrote to a list of files: names, folders, globs, lists and ``hf:`` data sets."""

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
MANIFEST, ANNOTATE, ANNOTATED = "manifest.json", "annotate", "pool.jsonl"  # a folder of mig-jax annotate, and its pool
_LARGEST_MANIFEST = 64 << 20  # bytes; a manifest.json beyond is somebody's pool


class Source(NamedTuple):
    """One file, or one ``hf:`` data set.

    Args:
      path: the file's path as it will be opened, or the whole ``hf:`` name.
      format: ``jsonl``, ``json``, ``parquet`` or ``hf``, by the name alone.
      compression: ``""``, ``gz`` or ``zst``.
    """

    path: str
    format: str
    compression: str


def resolve(path: str | Path | Sequence[str | Path]) -> list[Source]:
    """The sources that ``path`` names, in order (folders and globs sorted by path).

    Raises:
      UserError: nothing of that name, a suffix that is not known, nothing readable in a folder, the same file twice.
    """
    paths = [path] if isinstance(path, str | Path) else list(path)
    if not paths:
        raise UserError("pool.path: an empty list; name at least one file, folder, glob or hf:org/name")
    sources = [source for one in paths for source in _expand(one)]
    seen: dict[str, str] = {}
    for source in sources:
        same = source.path if source.format == "hf" else str(Path(source.path).resolve())
        if same in seen:
            raise UserError(
                f"pool.path: {source.path} is named twice (also as {seen[same]}); every row would count twice"
            )
        seen[same] = source.path
    return sources


def _expand(path: str | Path) -> Iterator[Source]:
    name = str(path)
    if not name.strip():
        raise UserError("pool.path: an empty name; give a file, a folder, a glob or hf:org/name")
    if name.startswith(HF):
        if len(name) == len(HF):
            raise UserError("pool.path: hf: needs a data set, for instance hf:org/name or hf:org/name:split")
        yield Source(name, "hf", "")
        return
    here = Path(name)
    if here.is_dir():
        yield from _in_folder(here)
    elif here.exists():
        source = classify(name)
        if source is None:
            raise UserError(f"{name}: the suffix is not one that is known: {KNOWN}")
        if not here.is_file():
            raise UserError(f"{name}: not a regular file; a pool is read more than once, so save the rows to a file")
        yield source
    elif glob.has_magic(name):
        # Path.glob takes no absolute pattern.
        found = sorted(f for f in glob.glob(name, recursive=True) if Path(f).is_file())  # noqa: PTH207
        known = [source for source in map(classify, found) if source]
        if not known:
            what = f"matches {len(found)} files, none of them" if found else "matches no file; looked for"
            raise UserError(f"pool.path: {name} {what} {KNOWN}")
        yield from known
    else:
        raise UserError(_missing(here))


def _in_folder(folder: Path) -> Iterator[Source]:
    # Hidden files and folders (.cache, .git, .ipynb_checkpoints) hold copies of what lies beside them.
    files = [
        f for f in folder.rglob("*") if f.is_file() and not any(p.startswith(".") for p in f.relative_to(folder).parts)
    ]
    # What an annotated pool's folder holds beside it (its manifest, rows that were refused) is no part of it.
    annotated = {f.parent for f in files if f.name == MANIFEST and _is_annotated(f)}
    for one in annotated:
        if one / ANNOTATED not in files:
            raise UserError(f"{one}: its {MANIFEST} is one of mig-jax annotate, but its {ANNOTATED} is gone")
    files = [f for f in files if annotated.isdisjoint(f.parents) or (f.name == ANNOTATED and f.parent in annotated)]
    known = [source for source in (classify(str(f)) for f in sorted(files)) if source]
    if not known:
        names = ", ".join(sorted(f.name for f in files)[:5]) or "nothing"
        raise UserError(f"{folder}: no pool file in this folder (found: {names}); a pool file ends in {KNOWN}")
    yield from known


def _is_annotated(manifest: Path) -> bool:
    """Whether it is the manifest of mig-jax annotate; what cannot be read is none."""
    try:
        made = json.loads(manifest.read_bytes()) if manifest.stat().st_size <= _LARGEST_MANIFEST else None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(made, dict) and made.get("kind") == ANNOTATE


def classify(name: str) -> Source | None:
    """The source a file name stands for, by its suffixes; None where they are not known."""
    stem, compression = Path(name.lower()), ""
    if stem.suffix in COMPRESSIONS:
        compression, stem = COMPRESSIONS[stem.suffix], stem.with_suffix("")
    kind = FORMATS.get(stem.suffix)
    return Source(name, kind, compression) if kind else None


def _missing(path: Path) -> str:
    parent = path.parent
    if not parent.is_dir():
        return f"{path}: no such file, and no folder {parent}"
    names = [f.name for f in parent.iterdir()]
    close = difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
    close += [n for n in names if n.startswith(path.name + ".") and n not in close][:3]
    hint = f"; close to it: {', '.join(close)}" if close else ""
    return f"{path}: no such file or folder{hint}"
