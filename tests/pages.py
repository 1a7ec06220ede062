"""The documents: their code blocks, and the files that these name."""

import gzip
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mig_jax.pool.configured import bundled_pool

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>not run|slow): (?P<reason>[^>]+) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S
)
PROGRAMS = ("mig-jax", "xsample")


@dataclass(frozen=True)
class Block:
    """A code block of a page, with the mark in front of it: "not run", "slow" or none."""

    page: str
    line: int
    language: str
    code: str
    mark: str | None
    reason: str | None

    @property
    def commands(self) -> list[str]:
        """The lines of a shell block, continuations joined."""
        lines = re.sub(r"\\\n\s*", " ", self.code).splitlines()
        return [line for line in lines if line.strip() and not line.startswith("#")]


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    text = read(page)
    return [
        Block(page, text.count("\n", 0, m.start("code")), m["language"], m["code"], m["mark"], m["reason"])
        for m in BLOCK.finditer(text)
    ]


def make_files(folder: Path) -> None:
    """What the documents name: pool.jsonl.gz and its like, from the rows of the bundled pool."""
    rows = [json.loads(line) for line in bundled_pool().read_text(encoding="utf-8").splitlines()]
    pool = []
    for i in range(1_200):
        row = rows[i % len(rows)]
        scores = {"ifd_score": {"content": 0.3 + (i * 7 % 11) / 15}}
        annotation = row["annotation"] | {"CaR": 1.0 + i * 5 % 17 / 10}
        pool.append(row | scores | {"_id": f"row-{i}", "annotation": annotation})
    raw = [{"_id": row["_id"], "source": row["source"], "dialogs": row["dialogs"]} for row in rows[:12]]
    lines = [json.dumps(row) for row in pool]
    (folder / "pool.jsonl.gz").write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode(), 1))
    (folder / "raw.jsonl.gz").write_bytes(gzip.compress("".join(f"{json.dumps(row)}\n" for row in raw).encode(), 1))
    (folder / "broken.jsonl").write_text("\n".join([*lines[:20], '{"dialogs": [', *lines[20:40]]) + "\n")
    other = [
        {"messages": row["dialogs"], "meta": {"tags": row["annotation"]["instag"]["content"], "stars": 1 + i % 5}}
        for i, row in enumerate(rows[:60])
    ]
    (folder / "other.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in other))
    tags = sorted({tag for row in rows for tag in row["annotation"]["instag"]["content"]})
    (folder / "tags.json").write_text(json.dumps(tags[:200]))
    (folder / "bad_ids.txt").write_text("row-3\nrow-5\n")
    (folder / "texts.txt").write_text("A first text.\nA second text.\n")
    (folder / "prompts.jsonl").write_text('{"prompt": "One plus one is"}\n')
    np.save(folder / "vectors.npy", np.random.default_rng(0).normal(size=(len(pool), 16)).astype(np.float32))
