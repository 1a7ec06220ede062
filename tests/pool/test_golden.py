"""The pool that the published code read, if it lies beside the repository."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mig_jax.core.errors import UserError
from mig_jax.pool import PRESENT, load_pool

SHARED = Path(__file__).parents[2].parent / "shared"
GOLDEN = SHARED / "golden" / "public"
EXAMPLE = SHARED / "data" / "pools" / "mig_example_10.jsonl"


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"{GOLDEN} is not there")
def test_the_rows_that_the_published_code_kept():
    pool = load_pool(GOLDEN / "pool.jsonl.gz", columns=["annotation.CaR"])
    want = np.load(GOLDEN / "mig" / "points.npz")
    annotated = (pool.tag_state == PRESENT) & (pool.quality_state == PRESENT) & (pool.complexity_state == PRESENT)
    kept = np.flatnonzero(annotated)
    np.testing.assert_array_equal(kept, want["kept_rows"])
    assert Counter(pool.status.tolist()) == {0: 2000}

    def score(row):
        quality = pool.quality[pool.quality_ptr[row] : pool.quality_ptr[row + 1]]
        complexity = pool.complexity[pool.complexity_ptr[row] : pool.complexity_ptr[row + 1]]
        return np.mean(quality * complexity)

    # The mean is summed in another order there.
    np.testing.assert_allclose([score(row) for row in kept], want["score"], rtol=1e-13)


@pytest.mark.skipif(not EXAMPLE.is_file(), reason=f"{EXAMPLE} is not there")
def test_the_published_example_has_a_broken_line():
    with pytest.raises(UserError, match=r"mig_example_10\.jsonl:3: malformed: trailing characters"):
        load_pool(EXAMPLE)
    pool = load_pool(EXAMPLE, on_error="skip")
    assert (pool.status == 0).sum() == 9
    assert [reject.line for reject in pool.rejects] == [3]
