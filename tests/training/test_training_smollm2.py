"""The real SmolLM2-135M: per-row losses, and eight updates on 32 rows of the bundled pool, against plain torch."""

import itertools

import numpy as np
import pytest
from flax import nnx

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.checkpoint import SMOLLM2_135M
from mig_jax.models.inference.language_model import LanguageModel, load_language_model
from mig_jax.models.inference.logprobs import token_logprobs
from mig_jax.models.tokenizers.tokens import Tokens
from mig_jax.training.optimizer import Optimizer
from mig_jax.training.packing import Rows, arrays, plan_update
from mig_jax.training.schedule import make_schedule
from mig_jax.training.step import init_state, make_step, update, zero_sums


@pytest.fixture(scope="module")
def smollm2() -> LanguageModel:
    try:
        return load_language_model(SMOLLM2_135M)
    except UserError as error:
        pytest.skip(f"SmolLM2 is not on this machine: {error}")


@pytest.fixture(scope="module")
def golden(shared):
    return shared / "golden/public/sft"


def rows_of(golden, prefix="") -> Rows:
    stored = np.load(golden / "smollm2_tokens.npz")
    ids, mask, ptr = (stored[prefix + name] for name in ("ids", "mask", "ptr"))
    return Rows(Tokens(ids.astype(np.int32), ptr.astype(np.int64)), mask > 0)


@pytest.mark.slow
def test_the_loss_of_every_row(smollm2, golden):
    """Per token 2e-4, per row 5e-5: torch's own difference between float32 and float64 is a quarter of it."""
    rows, stored = rows_of(golden), np.load(golden / "smollm2_forward.npz")
    logprob = token_logprobs(smollm2, rows.tokens)
    counts = rows.trained & ~np.isnan(logprob)
    np.testing.assert_allclose(-logprob[counts], stored["nll"], atol=2e-4, rtol=0)
    sums = [-logprob[a:b][counts[a:b]].sum(dtype=np.float64) for a, b in itertools.pairwise(rows.tokens.ptr)]
    np.testing.assert_allclose(sums, stored["nll_sum"], rtol=5e-5)


@pytest.mark.slow
def test_eight_updates(smollm2, golden):
    """The recorded run a, to its README's tolerances; the batches are packed, which torch's were not."""
    stored, whole = np.load(golden / "smollm2_run_a.npz"), rows_of(golden, "max128_")
    kept = np.load(golden / "smollm2_tokens.npz")["max128_kept"]
    model = nnx.merge(smollm2.loaded.graphdef, smollm2.loaded.state)
    state = init_state(model, Optimizer(), adapters=False)
    step = make_step(state, Optimizer())
    schedule = make_schedule(1e-4, "linear", 8, warmup_ratio=0.03)
    sums, losses, norms, rates = zero_sums(state.params), [], [], []
    for n in range(8):
        row = kept[8 * (n % 4) : 8 * (n % 4) + 8].astype(np.int64)
        batches = [arrays(batch, whole) for batch in plan_update(whole, row, max_length=128, micro_batch=4)]
        state, sums, metrics = update(step, state, sums, batches, schedule(n))
        losses.append(float(metrics.loss))
        norms.append(float(metrics.grad_norm))
        rates.append(schedule(n))
        assert sum(int(batch.count) for batch in batches) == stored["trained_tokens"][n]
    np.testing.assert_allclose(rates, stored["lr"], rtol=1e-7)
    np.testing.assert_allclose(losses[:2], stored["loss"][:2], rtol=2e-5)
    np.testing.assert_allclose(losses, stored["loss"], rtol=1e-4)
    np.testing.assert_allclose(norms, stored["grad_norm64"], rtol=2e-4)
