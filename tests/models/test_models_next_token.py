"""The logits of a few words after a text, against the whole row of logits of that text alone."""

from collections.abc import Sequence

import jax
import numpy as np
import pytest
from decoder_cases import draw_ids, language_model, random_decoder, read
from flax import nnx

from mig_jax.core.errors import UserError
from mig_jax.models.inference import next_token
from mig_jax.models.inference.language_model import LanguageModel, as_tokens
from mig_jax.models.inference.next_token import next_logits
from mig_jax.models.inference.packing import plan_batches
from mig_jax.models.networks.decoder import Decoder
from mig_jax.models.networks.sharding import model_mesh

CLOSE = 1e-5  # sums of 24 to 40 products in another order; logits of size 1
LENGTHS = [7, 1, 33, 2, 20, 60, 5, 12, 3, 3, 3, 3, 128]
WORDS = [9, 3, 32, 0, 9]  # in no order, and one twice


@pytest.fixture(scope="module", params=[False, True], ids=["head", "tied"])
def decoder(request) -> Decoder:
    return random_decoder(read(model_type="mistral", sliding_window=9, tie_word_embeddings=request.param))


@pytest.fixture(scope="module")
def texts() -> list[list[int]]:
    return draw_ids(7, LENGTHS)


@pytest.fixture(scope="module")
def expected(decoder, texts) -> np.ndarray:
    """Each text in a row of its own, all logits, and of these a few."""
    id_NxL, segment_NxL = np.zeros((2, len(texts), 128), np.int32)
    for n, ids in enumerate(texts):
        id_NxL[n, : len(ids)], segment_NxL[n, : len(ids)] = ids, 1
    logits = np.asarray(nnx.jit(lambda model: model.logits(model(id_NxL, segment_NxL).last_BxLxD))(decoder))
    return np.stack([logits[n, len(ids) - 1, WORDS] for n, ids in enumerate(texts)])


def found(model: LanguageModel, texts: list[list[int]], batch_tokens: int, words: Sequence[int] = WORDS) -> np.ndarray:
    tokens = as_tokens(texts)
    out = np.full((len(texts), len(words)), np.nan, np.float32)
    for batch, logit_nxC in next_logits(
        model, tokens, plan_batches(tokens.length, max_length=128, batch_tokens=batch_tokens), words
    ):
        assert logit_nxC.dtype == np.float32
        out[batch.text] = logit_nxC
    return out


@pytest.mark.parametrize("batch_tokens", [64, 128, 1024])
def test_they_are_those_of_the_text_alone(decoder, texts, expected, batch_tokens):
    np.testing.assert_allclose(found(language_model(decoder), texts, batch_tokens), expected, atol=CLOSE)
    assert np.ptp(expected, axis=0).min() > 0.1


def test_a_mesh_gives_the_same(decoder, texts, expected):
    """Rows over 2 x 2 devices, heads and the vocabulary over 2."""
    mesh = model_mesh(2, 2, 2)
    cut = language_model(random_decoder(decoder.config, mesh=mesh), mesh=mesh)
    np.testing.assert_allclose(found(cut, texts, 128), expected, atol=CLOSE)


def test_no_logit_is_made_that_is_not_asked_for(decoder):
    """33 words, 64 places, 5 texts: neither all words of a place nor all places of a word."""
    loaded, place_P, id_C = language_model(decoder).loaded, np.zeros(5, np.int32), np.array(WORDS, np.int32)

    def run(ids):
        return next_token._next_logits(loaded.graphdef, loaded.state, ids, ids, place_P, id_C, exact=True)

    text = str(jax.make_jaxpr(run)(np.ones((1, 64), np.int32)))
    assert "f32[5,5]" in text
    assert "5,33]" not in text and "64,33]" not in text and "64,5]" not in text


def test_few_programs(decoder, texts):
    """One, whatever the texts and the words."""
    model = language_model(decoder)
    jax.clear_caches()
    count = []

    def hear(event: str, duration_secs: float, **more: str | int) -> None:
        if event.endswith("backend_compile_duration") and more["fun_name"] == "jit(_next_logits)":
            count.append(event)

    jax.monitoring.register_event_duration_secs_listener(hear)
    try:
        for some, words in ((texts, WORDS), (texts[3:], WORDS[::-1]), (texts[5:], [1, 2, 3, 4, 5])):
            found(model, some, 128, words)
    finally:
        jax.monitoring.unregister_event_duration_listener(hear)
    assert len(count) == 1


def test_words_that_there_are_not(decoder):
    with pytest.raises(UserError, match="model tiny has no token 33; must be 0 to 32"):
        found(language_model(decoder), [[3]], 128, [3, 33])


def test_weights_that_hold_nan_are_found_and_a_text_s_own_nan_is_not_theirs(decoder):
    """A text in a row of its own; in a row of several, none of these would have numbers."""
    broken = random_decoder(decoder.config)
    broken.norm.scale[...] = np.nan * broken.norm.scale[...]
    with pytest.raises(UserError, match="model tiny: logits are not finite, so its weights hold NaN or infinity"):
        found(language_model(broken), [[3, 4]] * 40, 128)
    odd = random_decoder(decoder.config)
    odd.embed.embedding[...] = odd.embed.embedding[...].at[32].set(np.nan)
    got = found(language_model(odd), [[3, 4, 5]] * 39 + [[3, 32] * 64], 128, [9, 3])
    assert np.isnan(got[-1]).all() and np.isfinite(got[:-1]).all()
