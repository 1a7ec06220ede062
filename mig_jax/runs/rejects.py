"""rejects.jsonl and rejects.txt: the rows that a run could not use, as they came, and why."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mig_jax.core.json_files import clean_text
from mig_jax.core.lines import one_line, write_lines
from mig_jax.pool.view import PoolView

REJECTS = "rejects.jsonl"
REJECT_REASONS = "rejects.txt"


def write_rejects(folder: Path, pool: PoolView, reasons: Mapping[int, str]) -> None:
    """Write both files, or none where there is no such row; ``reasons``: pool row -> what is wrong with it."""
    if reasons:
        write_lines(folder / REJECTS, map(one_line, pool.read_rows(np.array([*reasons], np.int64))))
        lines = (clean_text(f"{pool.where(row)}: {reason}").encode() for row, reason in reasons.items())
        write_lines(folder / REJECT_REASONS, map(one_line, lines))
