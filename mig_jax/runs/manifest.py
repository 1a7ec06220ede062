"""manifest.json: everything that a report, a comparison or a repetition needs to know of a run.

One struct for each kind of run: the keys of ``Manifest``, which all have, then its own. The struct is the schema: a
manifest is checked against it when it is written and when it is read.
"""

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from mig_jax.core.errors import UserError, split_validation
from mig_jax.pool.view import PoolView

MANIFEST = "manifest.json"
REPORT = "report.html"
SCHEMA = 1
"""Of the structs below; it grows with every change that a reader must know of."""
PACKAGES = ("mig_jax", "jax", "jaxlib", "flax", "numpy", "scipy", "pyarrow", "msgspec", "transformers", "tokenizers")


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a manifest."""


class Source(_Part, frozen=True):
    """One file of the input, as it was read."""

    path: str
    sha256: str
    size_bytes: int
    rows: int
    layout: str
    format: str


class FileFacts(_Part, frozen=True):
    """One file of the output."""

    bytes: int
    sha256: str


class SampleFile(FileFacts, frozen=True):
    """The FILE of ``sample --out FILE``."""

    path: str


class Devices(_Part, frozen=True):
    """What computed. ``mesh``: devices along each axis; None without a mesh."""

    count: int
    kind: str
    platform: str
    processes: int
    mesh: dict[str, int] | None = None


class Memory(_Part, frozen=True):
    """The most that the process held at once. ``since``: the start of the "run", or of the "process"."""

    peak_bytes: int
    since: str


class Certificate(_Part, frozen=True):
    """``bound``: no selection of as many rows exceeds it; ``ratio`` = E(D) / bound."""

    bound: float | None
    ratio: float | None


class PoolCounts(_Part, frozen=True):
    """Rows of the pool. ``usable``: those that could be selected."""

    rows: int
    usable: int


class LabelCounts(_Part, frozen=True):
    """Labels of the pool. ``covered``: those that a selected row has."""

    total: int
    covered: int


class Step(_Part, frozen=True):
    """One step of a vocabulary: distinct tags before and after it, and how many it merged."""

    step: str
    before: int
    after: int
    merged: int


class Manifest(_Part, frozen=True, tag_field="kind"):
    """What every run records.

    Args:
      schema: ``SCHEMA`` of the writer.
      name: of the run: its folder's, or its pool's.
      run_key: hex sha256 of what decides the files.
      command: the command line, ready to run again.
      finished: UTC, ISO 8601.
      config: the resolved configuration.
      versions: of Python and of the packages that affect a result.
      timings: stage -> seconds, in the order in which the stages ended.
      notes: warnings of the run.
      files: name -> size and hash of every file of the run but manifest.json and report.html.
      inputs: the files that were read.
    """

    schema: int
    name: str
    run_key: str
    command: str
    finished: str
    config: dict[str, Any]
    versions: dict[str, str]
    devices: Devices
    timings: dict[str, float]
    memory: Memory
    notes: tuple[str, ...]
    files: dict[str, FileFacts]
    inputs: tuple[Source, ...]


class SelectManifest(Manifest, frozen=True, tag="select"):
    """``mig-jax select``.

    Args:
      n: rows selected; fewer than the largest budget where a system found no more.
      budgets: those of the configuration, ascending.
      gain_meaning: what the trace's gain is.
      objective: budget -> E(D) of its selection, E(empty) = 0; None where the pool has no labels.
      random_objective: rows -> E(D) of a random pick of as many.
      certificate: budget -> how far from the optimum its selection can be.
      dropped: reason -> pool rows that could not be selected.
      graph: facts of the label graph.
      rounds: counters of the engine.
      limits: what bounded the picks.
      layout: of the selection's rows; None where the pool mixes layouts.
      sample_file: None but for ``sample --out FILE``.
    """

    n: int
    budgets: tuple[int, ...]
    gain_meaning: str
    objective: dict[int, float | None]
    random_objective: dict[int, float | None]
    certificate: dict[int, Certificate]
    pool: PoolCounts
    dropped: dict[str, int]
    labels: LabelCounts
    graph: dict[str, Any]
    rounds: dict[str, Any]
    limits: dict[str, Any]
    layout: str | None
    sample_file: SampleFile | None = None


class AnnotateManifest(Manifest, frozen=True, tag="annotate"):
    """``mig-jax annotate``.

    Args:
      n: rows written.
      pool_rows: rows of the pool.
      rejected: rows that are no JSON objects.
      select: what ``mig-jax select`` needs beside the folder; "" for nothing.
      annotators: annotator -> its counts, settings and speed.
    """

    n: int
    pool_rows: int
    rejected: int
    select: str
    annotators: dict[str, dict[str, Any]]


class EmbedManifest(Manifest, frozen=True, tag="embed"):
    """``mig-jax embed``.

    Args:
      target: what was embedded: "rows", "labels" or "texts".
      n: vectors, of ``dim`` numbers of ``dtype``.
      without_text: rows without a dialog; without_tokens: texts that have no token. Their vectors are zero.
      embedder: fingerprint of the weights and settings.
      tokens: of all texts; computed: those that this attempt computed; cut: texts longer than ``max_length``.
    """

    target: str
    n: int
    dim: int
    dtype: str
    without_text: int
    without_tokens: int
    embedder: str
    pooling: str
    max_length: int
    append_eos: bool
    tokens: int
    cut: int
    batches: int
    batch_tokens: int
    computed: int
    tokens_per_s: float | None


class VocabularyManifest(Manifest, frozen=True, tag="vocabulary"):
    """``mig-jax vocabulary``.

    Args:
      rows: of the pool; tags: distinct ones.
      labels: of the vocabulary; aliases: other tags that mean one of them.
      embedder: fingerprint of the weights and settings; None where no step embeds.
    """

    rows: int
    tags: int
    labels: int
    aliases: int
    steps: tuple[Step, ...]
    embedder: str | None


AnyManifest = SelectManifest | AnnotateManifest | EmbedManifest | VocabularyManifest
M = TypeVar("M", bound=Manifest)


class _Header(_Part, frozen=True):
    """What tells a manifest of mig_jax from another program's file of this name."""

    schema: int
    kind: str
    run_key: str


class Outline(_Part, frozen=True):
    """What the next run of the same folder needs of a manifest of any kind."""

    kind: str
    run_key: str
    command: str
    finished: str
    files: dict[str, FileFacts]
    sample_file: SampleFile | None = None


def read_manifest(path: str | Path, kind: type[M] = AnyManifest) -> M:  # type: ignore[assignment]
    """Read and check a manifest.

    Args:
      path: the file, or the folder of its run.
      kind: the struct of the kind of run that is expected; by default any.

    Raises:
      UserError: there is none, it is not one of mig_jax, another version wrote it, a key is missing or has a value of
        another type, or the run is of another kind.
    """
    file, raw, header = _open(path)
    if kind is not AnyManifest and header.kind != kind.__struct_config__.tag:
        raise UserError(f"{path} holds a run of mig-jax {header.kind}, not of mig-jax {kind.__struct_config__.tag}")
    return _decode(file, raw, kind)


def read_outline(path: str | Path) -> Outline:
    """The outline of a run of any kind, also of one that this version does not know; errors as ``read_manifest``."""
    file, raw, _ = _open(path)
    return _decode(file, raw, Outline)


def read_kind(path: str | Path) -> str:
    """The command that wrote a manifest; errors as ``read_manifest`` but for keys that are missing or wrong."""
    return _open(path)[2].kind


def _open(path: str | Path) -> tuple[Path, bytes, _Header]:
    """The file, its content and its header."""
    path = Path(path)
    file = path / MANIFEST if path.is_dir() else path
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} holds no {MANIFEST}; give the out folder of a finished run") from None
    except OSError as error:
        raise UserError(f"{file} is not a readable manifest: {error.strerror or error}") from None
    try:
        header = msgspec.json.decode(raw, type=_Header)
    except msgspec.ValidationError:
        raise UserError(f"{file} is not a manifest of mig_jax (it needs schema, kind and run_key)") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{file} is not a readable manifest: {error}") from None
    if header.schema != SCHEMA:
        raise UserError(f"{file} has schema {header.schema}; this mig_jax reads schema {SCHEMA}")
    return file, raw, header


def _decode(file: Path, raw: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        text, key = split_validation(str(error))
        raise UserError(text, key=key or None, where=file) from None


def versions(*more: str) -> dict[str, str]:
    """Python's version and those of ``PACKAGES`` and of ``more``; packages that are not installed are left out."""
    installed = {"python": platform.python_version()}
    for name in (*PACKAGES, *more):
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed


def file_facts(path: Path) -> FileFacts:
    """Size and hash of a file."""
    with path.open("rb") as file:
        return FileFacts(bytes=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


def sources_of(pool: PoolView) -> tuple[Source, ...]:
    """The files of a pool, as they were read."""
    return tuple(Source(**{key: getattr(source, key) for key in Source.__struct_fields__}) for source in pool.sources)
