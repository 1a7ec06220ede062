"""The command on the recorded pool makes the reference's picks: from the rows' bytes to trace.parquet, MiniLM between.

tests/golden has the same parity from numbers alone, where this pool is absent; here tags are read, counted, embedded
and joined by mig_jax itself.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Mig

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.checkpoint import MINILM, find_checkpoint

NEAR_TIE = 1e-6  # a relative margin below which float32 cannot tell two rows apart


class Setting(NamedTuple):
    stored: str
    n: int
    words: tuple[str, ...] = ()
    exact: bool = False


SETTINGS = {
    "issue": Setting("T065", 200),
    "exp": Setting("T065_exp", 300, ("phi=exp",)),
    "normalize": Setting("T065_norm", 300, ("score.normalize=true",)),
    "exact": Setting("T065", 300, ("sampler.gain=exact",), exact=True),
}


@pytest.fixture(scope="module")
def weights() -> None:
    """MiniLM is on this machine."""
    try:
        find_checkpoint(MINILM)
    except UserError as error:
        pytest.skip(f"MiniLM's weights are not on this machine: {error}")


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.usefixtures("weights")
def test_the_command_makes_the_reference_s_picks(mig: Mig, shared: Path, tmp_path: Path, name: str) -> None:
    setting = SETTINGS[name]
    pool = shared / "golden" / "public" / "pool.jsonl.gz"
    done = mig(
        "select",
        f"pool.path={pool}",
        f"pool.valid_tags={shared / 'data' / 'instag_tags_4531.json'}",
        f"n={setting.n}",
        "graph.threshold=0.65",
        *setting.words,
        f"out={name}",
    )
    assert (done.code, done.err) == (0, ""), done

    golden = shared / "golden" / "public" / "mig"
    with np.load(golden / f"sel_{setting.stored}.npz") as stored, np.load(golden / "points.npz") as points:
        if setting.exact:  # a float64 greedy of its own: the reference has no such gain
            rows, gain = points["kept_rows"][stored["exact_order"]], stored["exact_gain"]
            margin = stored["exact_margin"]
        else:
            rows, gain, margin = stored["order_rows"], stored["gain_f32"], stored["forced_margin"]
            np.testing.assert_array_equal(rows, points["kept_rows"][stored["order"]])
    tied = np.flatnonzero(margin / gain < NEAR_TIE)
    assert not len(tied), "none of these settings has a step that float32 cannot decide"
    trace = pq.read_table(tmp_path / name / "trace.parquet")
    assert trace["rank"].to_pylist() == list(range(1, setting.n + 1))
    np.testing.assert_array_equal(trace["row"].to_numpy(), rows[: setting.n])
    # Cosines of other float32 embeddings (2e-7 apart) and float32 gains (2e-7 from float64).
    np.testing.assert_allclose(trace["gain"].to_numpy(), gain[: setting.n], rtol=1e-6)
