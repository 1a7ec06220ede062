"""A selection of a Python program: its picks, and the files that ``mig-jax select`` writes."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from jaxtyping import Float64, Int64

from mig_jax.commands.select.config import SelectConfig
from mig_jax.commands.select.inputs import Inputs, notes_of, run_key
from mig_jax.commands.select.run import write_selection
from mig_jax.commands.select.solve import Solved
from mig_jax.core.errors import UserError
from mig_jax.core.files import write_atomic
from mig_jax.core.html import Described
from mig_jax.core.index import PoolRowArray, as_pool_rows
from mig_jax.encode import Encoded
from mig_jax.labels import LabelGraph
from mig_jax.objective import Certificate
from mig_jax.pool import Pool
from mig_jax.report import page
from mig_jax.runs.run import Run

COMMAND = "python: mig_jax.select"


@dataclass(frozen=True, repr=False)
class Selection(Described):
    """n rows of a pool in the order of the picks.

    Args:
      config: the settings, as those of ``mig-jax select``.
      inputs: the pool, its usable rows and the label graph.
      solved: the picks and their worth.
    """

    config: SelectConfig
    inputs: Inputs
    solved: Solved

    def __len__(self) -> int:
        return len(self.solved.order)

    @property
    def rows(self) -> Int64[PoolRowArray, " n"]:
        """The index of each picked row in the pool."""
        return as_pool_rows(self.encoded.row[self.solved.order.points])

    @property
    def gains(self) -> Float64[np.ndarray, " n"]:
        """The gain of each pick when it was taken, by the sampler's own measure."""
        return self.solved.order.gains

    @property
    def objective(self) -> Float64[np.ndarray, " n"]:
        """E(D) after each pick, E(empty) = 0; zeros where the pool has no labels."""
        return self.solved.curve.objective

    @property
    def certificate(self) -> Certificate:
        """How far from the best n rows these can be at most."""
        return self.solved.certificate.get(self.inputs.budgets[-1], Certificate(0.0, 0.0, 1.0))

    @property
    def pool(self) -> Pool:
        """The pool that the rows were picked from."""
        return self.inputs.pool

    @property
    def encoded(self) -> Encoded:
        """The usable rows of the pool."""
        return self.inputs.encoded

    @property
    def graph(self) -> LabelGraph:
        """The label graph, on the labels of the usable rows."""
        return self.inputs.graph

    def texts(self, count: int | None = None) -> list[list[tuple[str, str]]]:
        """The dialogs of the first ``count`` picks: (role, content) of every turn."""
        return self.pool.dialogs(self.rows[:count])

    def write(self, folder: str | Path) -> Path:
        """Write the files of ``mig-jax select`` into a new or empty folder.

        Raises:
          UserError: the folder is not empty, or cannot be written.
        """
        folder = Path(folder)
        if folder.exists() and any(folder.iterdir()):
            raise UserError("is not empty", where=folder)
        config = msgspec.structs.replace(self.config, out=str(folder))
        with Run(folder, COMMAND, msgspec.to_builtins(config), name=config.pool.name) as run:
            run.claim(run_key(config, self.inputs))
            run.note(*notes_of(config, self.inputs))
            write_selection(run, config, self.inputs, self.solved)
        return folder

    def report(self, path: str | Path | None = None) -> str:
        """The report as one HTML page; also written to ``path`` if that is given."""
        with tempfile.TemporaryDirectory() as folder:
            html = page(self.write(Path(folder) / "selection"))
        if path is not None:
            write_atomic(Path(path), html)
        return html

    def _facts(self) -> dict[str, str]:
        facts = {"rows": f"{len(self):,} of {len(self.encoded):,}", "sampler": self.config.sampler.name}
        if len(self.encoded.labels) and len(self):
            reached, ratio = f"{self.objective[-1]:,.4g}", self.certificate._facts()["ratio"]
            facts |= {"objective": reached, "of_the_optimum": f"at least {ratio}"}
        return facts
