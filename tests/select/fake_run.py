"""A small pool and the facts of a run on it, for the tests of export and of report."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from mig_jax.commands.select.files import RunFacts, RunnersUp, write_run
from mig_jax.core.json_files import jsonable, write_json
from mig_jax.encode.encoded import Encoded
from mig_jax.runs.manifest import MANIFEST, Manifest, SelectManifest
from mig_jax.runs.run import Run
from mig_jax.samplers.order import Order


@dataclass(frozen=True)
class FakeSource:
    path: str
    sha256: str
    size_bytes: int
    rows: int
    layout: str
    format: str


class FakePool:
    """mig_jax.pool.Pool as far as writing a run looks at it; rows are held as bytes."""

    def __init__(self, rows: Sequence[bytes], layout: str = "mig", source_names: Sequence[str] = ("a", "b")):
        self.raw = list(rows)
        self.records = [json.loads(row) for row in rows]
        self.sources = (FakeSource("pool.jsonl", "ab" * 32, sum(map(len, rows)), len(rows), layout, "jsonl"),)
        self.fields: dict[str, str] = {}
        self.source_names = tuple(source_names)
        names = {name: at for at, name in enumerate(source_names)}
        self.source_idx = np.array([names.get(record.get("source"), -1) for record in self.records], np.int32)
        self.turns = np.array([len(dialog) for dialog in self.dialogs(range(len(rows)))], np.int32)
        self.chars = np.array([len(row) for row in rows], np.int64)
        self.tokens = np.full(len(rows), -1, np.int64)
        self.tokens[::2] = self.chars[::2] // 4

    def __len__(self) -> int:
        return len(self.raw)

    def where(self, row: int) -> str:
        return f"pool.jsonl:{row + 1}"

    def id(self, row: int) -> str | None:
        return self.records[row].get("_id")

    def read_rows(self, rows: Sequence[int]) -> Iterator[bytes]:
        return (self.raw[row] for row in rows)

    def dialogs(self, rows: Sequence[int]) -> list[list[tuple[str, str]]]:
        return [[(turn["role"], turn["content"]) for turn in self.records[row]["dialogs"]] for row in rows]


def row(at: int, text: str = "Why?", source: str | None = "a") -> bytes:
    turns = [{"role": "user", "content": f"{text} {at}"}, {"role": "assistant", "content": "Because."}]
    record: dict[str, Any] = {"dialogs": turns, "_id": f"id{at}" if at % 3 else None, "source": source}
    return json.dumps(record, ensure_ascii=False).encode()


def run_facts(rows: Sequence[bytes] | None = None, labels: Sequence[str] = ("alpha", "beta", "gamma"), **changes: Any):
    """Facts of a run that picks 5 of 12 rows (2 more are no points)."""
    rows = rows or [row(at, source=("a", "b", None)[at % 3]) for at in range(14)]
    points = np.array([7, 0, 11, 3, 5])
    gains = np.array([9.0, 5.0, 4.0, 2.0, 1.0])
    facts = RunFacts(
        pool=FakePool(rows),
        encoded=Encoded(
            row=np.arange(12, dtype=np.int64) + 2,
            label_ptr=np.arange(13, dtype=np.int64),
            label_idx=np.array([0, 0, 1, 0, 2, 0, 1, 1, 0, 2, 2, 0], np.int32),
            score=np.linspace(1, 5, 12),
            labels=tuple(labels),
            dropped={"no score": 1, "malformed": 1},
        ),
        selection=Order(points, gains, "first-order gain", {"full passes": 2}),
        budgets=(5,),
        objective=np.cumsum(gains),
        rise=gains,
        random_objective={2: 6.0, 5: 14.0},
        certificate={5: {"bound": 22.0, "ratio": 21 / 22}},
        labels_earned=[[(labels[0], 0.25), (labels[1], 0.75)]] * 5,
        runners_up=RunnersUp(np.array([1, 2]), np.array([0.9, 0.5]), [[(labels[0], 1.0)]] * 2),
        graph={"nodes": 3, "edges": 2, "mean_degree": float("nan")},
    )
    if "objective" in changes:
        changes.setdefault("rise", np.diff(changes["objective"], prepend=0.0))
    return replace(facts, **changes)


def finished_run(
    folder: Path,
    facts: RunFacts | None = None,
    page: Callable[[Path], str] = lambda _: "<p>",
    *,
    sample_file: Path | None = None,
    **changes: Any,
) -> SelectManifest:
    """The folder of a finished run; what it holds already stays beside.

    Args:
      facts: by default ``run_facts()``.
      sample_file: as of ``Run``, ``folder`` being its FILE.run.
      changes: of the facts, or of what every manifest has (name, command, config, timings, memory, notes, ...).
    """
    common = {key: changes.pop(key) for key in Manifest.__struct_fields__ if key in changes}
    if "objective" in changes:
        changes.setdefault("rise", np.diff(changes["objective"], prepend=0.0))
    facts = replace(facts or run_facts(), **changes)
    command, config = "mig-jax select pool.jsonl n=5", {"n": 5, "sampler": {"name": "mig"}}
    with Run(folder, command, config, name="run", sample_file=sample_file) as run:
        run.claim("f" * 64, overwrite=True)
        run.timings.seconds = {"pool": 0.5, "select": 0.01}
        run.notes += common.pop("notes", ())
        manifest = write_run(run, facts)
        if common:
            plain = msgspec.to_builtins(manifest, str_keys=True) | jsonable(common)
            manifest = msgspec.convert(plain, SelectManifest, str_keys=True)
            write_json(run.files / MANIFEST, plain)
        run.write_report(page(run.files))
        run.publish()
    return manifest


def write_pool(path: Path, rows: Sequence[bytes]) -> None:
    path.write_bytes(b"".join(line + b"\n" for line in rows))
