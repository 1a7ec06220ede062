"""Log-probabilities of given texts against a softmax over everything, and against themselves in other batches."""

import jax
import numpy as np
import pytest
from decoder_cases import draw_ids, language_model, random_decoder, read
from flax import nnx

from mig_jax.core.errors import UserError
from mig_jax.models.inference import logprobs
from mig_jax.models.inference.language_model import LanguageModel, as_tokens
from mig_jax.models.inference.logprobs import mean_losses, token_logprobs
from mig_jax.models.inference.packing import plan_batches
from mig_jax.models.networks.decoder import Decoder
from mig_jax.models.networks.sharding import model_mesh

CLOSE = 1e-5  # sums of 24 to 40 products, and of 33 exponentials, in another order
LENGTHS = [7, 1, 33, 2, 20, 0, 60, 5, 12]
FIRST = [1, 1, 20, 1, 20, 1, 59, 0, 3]  # all, none possible, some, all, none left, none, the last, as 1, some


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return random_decoder(read(model_type="mistral", sliding_window=9))


@pytest.fixture(scope="module")
def model(decoder) -> LanguageModel:
    return language_model(decoder)


@pytest.fixture(scope="module")
def texts() -> list[list[int]]:
    return draw_ids(7, LENGTHS)


@pytest.fixture(scope="module")
def expected(decoder, texts) -> np.ndarray:
    """The whole [texts, tokens, V] of log-probabilities, each text in a row of its own; then what was asked for."""
    id_NxL, segment_NxL = np.zeros((2, len(texts), 64), np.int32)
    for n, ids in enumerate(texts):
        id_NxL[n, : len(ids)], segment_NxL[n, : len(ids)] = ids, 1
    run = nnx.jit(lambda model: jax.nn.log_softmax(model.logits(model(id_NxL, segment_NxL).last_BxLxD)))
    found = np.asarray(run(decoder))
    flat = []
    for n, (ids, first) in enumerate(zip(texts, FIRST, strict=True)):
        flat += [found[n, t - 1, ids[t]] if t >= max(first, 1) else np.nan for t in range(len(ids))]
    return np.array(flat, np.float32)


def test_they_are_the_whole_softmax_s(model, texts, expected):
    found = token_logprobs(model, texts, FIRST, batch_tokens=128)
    assert found.dtype == np.float32
    assert np.isnan(expected).sum() > 60
    np.testing.assert_allclose(found, expected, atol=CLOSE)  # NaN where and only where it is expected


@pytest.mark.parametrize("chunk_size", [1, 32, 64])
def test_chunks_of_any_size_give_the_same(model, texts, expected, chunk_size, monkeypatch):
    """Fewer places than a chunk, and a last chunk half full."""
    monkeypatch.setattr(logprobs, "chunk_size_of", lambda vocab_size, positions: chunk_size)
    np.testing.assert_allclose(token_logprobs(model, texts, FIRST, batch_tokens=128), expected, atol=CLOSE)


def test_the_packing_does_not_matter(model, texts, expected):
    """One row a batch; all in one batch; and the texts in another order."""
    for batch_tokens in (64, 1024):
        np.testing.assert_allclose(token_logprobs(model, texts, FIRST, batch_tokens=batch_tokens), expected, atol=CLOSE)
    order = [4, 8, 2, 0, 6, 1, 7, 3, 5]
    ptr = as_tokens(texts).ptr
    found = token_logprobs(model, as_tokens([texts[n] for n in order]), [FIRST[n] for n in order], batch_tokens=128)
    np.testing.assert_allclose(found, np.concatenate([expected[ptr[n] : ptr[n + 1]] for n in order]), atol=CLOSE)


def test_a_mesh_gives_the_same(decoder, texts, expected):
    """Rows over 2 x 2 devices, heads and vocabulary's logits over 2."""
    mesh = model_mesh(2, 2, 2)
    cut = language_model(random_decoder(decoder.config, mesh=mesh), mesh=mesh)
    np.testing.assert_allclose(token_logprobs(cut, texts, FIRST, batch_tokens=128), expected, atol=CLOSE)


def test_the_mean_loss_is_the_mean(model, texts, expected):
    """Text by text, of whatever batches are asked for; NaN where no token counts. Means of float32 in float64."""
    tokens = as_tokens(texts)
    plan = plan_batches(tokens.length, max_length=128, batch_tokens=64)
    out_N = np.full(len(texts), 99.0)
    for batch, loss_nx1 in mean_losses(model, tokens, FIRST, plan[::-1]):
        assert loss_nx1.dtype == np.float64
        assert loss_nx1.shape == (len(batch.text), 1)
        out_N[batch.text] = loss_nx1[:, 0]
    parts = np.split(expected, tokens.ptr[1:-1])
    counted = [part[~np.isnan(part)] for part in parts]
    mean_N = np.array([-part.mean(dtype=np.float64) if len(part) else np.nan for part in counted])
    mean_N[[n for n, ids in enumerate(texts) if not ids]] = 99.0
    assert np.isnan(mean_N).sum() == 2 and (mean_N == 99).sum() == 1
    np.testing.assert_allclose(out_N, mean_N, atol=CLOSE)


def test_a_first_beyond_the_end_counts_nothing(model):
    tokens = as_tokens(draw_ids(1, [5, 5]))
    plan = plan_batches(tokens.length, max_length=128, batch_tokens=64)
    [(batch, loss_nx1)] = mean_losses(model, tokens, [9, 2], plan)
    assert np.isnan(loss_nx1[batch.text == 0]).all()
    assert np.isfinite(loss_nx1[batch.text == 1]).all()


def test_one_first_for_all(model, texts, expected):
    found = token_logprobs(model, texts, 3, batch_tokens=128)
    ptr = as_tokens(texts).ptr
    whole = token_logprobs(model, texts, batch_tokens=128)
    place = np.concatenate([np.arange(n) for n in LENGTHS])
    np.testing.assert_array_equal(np.isnan(whole), place == 0)
    np.testing.assert_allclose(found, np.where(place < 3, np.nan, whole), atol=CLOSE)
    assert ptr[-1] == len(found)


def test_logits_are_made_where_they_are_asked_for_only(model):
    """As many chunks as are needed: the loop's count is a number of the program's input."""
    texts = draw_ids(1, [64])
    few = jax.make_jaxpr(lambda count: logprobs._logprobs(
        model.loaded.graphdef, model.loaded.state, np.zeros((1, 64), np.int32), np.ones((1, 64), np.int32),
        np.zeros(64, np.int32), np.zeros(64, np.int32), count, chunk_size=8, exact=True,
    ))(np.int32(3))  # fmt: skip
    assert "while" in str(few)
    assert "64,33" not in str(few), "the logits of a whole batch"
    assert "8,33" in str(few)
    assert len(texts[0]) == 64


def test_few_programs(model, texts):
    """A program a width, whatever is asked of how many texts."""
    jax.clear_caches()
    count = []

    def hear(event: str, duration_secs: float, **more: str | int) -> None:
        if event.endswith("backend_compile_duration") and more["fun_name"] == "jit(_logprobs)":
            count.append(event)

    jax.monitoring.register_event_duration_secs_listener(hear)
    try:
        for seed, first in ((0, 1), (1, 5), (2, 0)):
            token_logprobs(model, draw_ids(seed, LENGTHS[seed:]), first, batch_tokens=128)
    finally:
        jax.monitoring.unregister_event_duration_listener(hear)
    assert len(count) == 1


def test_what_does_not_fit_is_refused_by_name(model, decoder):
    with pytest.raises(
        UserError, match=r"text 1 has 129 tokens; the model takes at most 128.*text 2 has the id -1; must be"
    ):
        token_logprobs(model, [[3], [3] * 129, [5, -1]])
    with pytest.raises(UserError, match="text 0 has 11 tokens; the model takes at most 10"):
        token_logprobs(language_model(decoder, max_length=10), [[3] * 11])
    with pytest.raises(UserError, match=r"and 3 more$"):
        token_logprobs(model, [[99]] * 8)


def test_weights_that_hold_nan_are_found(decoder):
    broken = random_decoder(decoder.config)
    broken.norm.scale[...] = np.nan * broken.norm.scale[...]
    with pytest.raises(UserError, match="NaN or infinity"):
        token_logprobs(language_model(broken), [[3, 4, 5]])


def test_progress_and_nothing_at_all(model):
    told = []
    token_logprobs(model, draw_ids(0, [60, 60, 1]), batch_tokens=64, progress=lambda *which: told.append(which))
    assert told == [("logprobs", 2, 3, "texts"), ("logprobs", 3, 3, "texts")]
    assert token_logprobs(model, []).shape == (0,)
