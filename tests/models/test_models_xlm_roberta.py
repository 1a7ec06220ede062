"""XLM-R and RoBERTa: torch's outputs, and every layer against a forward pass in plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_encoders import assert_layers_are_torch_s, assert_rows_are, in_rows, load, tiny_config, tiny_weights, write

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.encoder_config import roberta_config


@pytest.mark.parametrize(("kind", "pad"), [("xlm-roberta", 1), ("roberta", 0), ("roberta", 4)])
def test_every_layer_is_the_paper_s_alone_packed_and_padded(tmp_path, kind, pad):
    config = tiny_config(kind, pad_token_id=pad)
    tensors = tiny_weights(config, seed=12)
    rows = [[[6, 9, 9, 17, 29, 2]], [[6, 5, 6, 7, 2], [6, 8, 2], [6, 2]]]
    assert_rows_are(config, tensors, load(write(tmp_path / kind, config, tensors)), rows, 12)


def test_the_longest_text_fits_and_uses_the_last_position(tmp_path):
    config = tiny_config("xlm-roberta", max_position_embeddings=11)
    tensors = tiny_weights(config, seed=13)
    model = load(write(tmp_path / "short", config, tensors))
    assert model.config.max_positions == 9
    assert_rows_are(config, tensors, model, [[[7, 8, 9, 10, 11, 12, 13, 14, 15]]], 9)


def test_tiny_golden_layer_by_layer(golden):
    stored, got = assert_layers_are_torch_s(golden / "tiny/xlm-roberta")
    whole = stored["mask"][:, :, None]
    np.testing.assert_allclose((got.last_BxLxD * whole).sum(1) / whole.sum(1), stored["mean"], atol=1e-5)


def test_bfloat16_is_near(tmp_path):
    """See the same test of BERT."""
    config = tiny_config("xlm-roberta")
    folder = write(tmp_path / "x", config, tiny_weights(config, seed=12))
    given = in_rows([[[6, 9, 9, 17, 29, 2]]], 6)
    got, near = (jax.jit(load(folder, dtype=dtype))(*given).last_BxLxD for dtype in ("float32", "bfloat16"))
    assert near.dtype == jnp.bfloat16
    assert 0 < np.abs(np.asarray(near, np.float32) - got).mean() < 0.03


def test_config():
    config = roberta_config(tiny_config("xlm-roberta", max_position_embeddings=514))
    assert (config.max_positions, config.first_position, config.types) == (512, 2, 1)
    raw = tiny_config("roberta", pad_token_id=None, layer_norm_eps=-1, num_attention_heads=True)
    del raw["type_vocab_size"]
    with pytest.raises(UserError) as error:
        roberta_config(raw, "here/config.json")
    for part in ("here/config.json", "pad_token_id must be a whole number >= 0, not None", "layer_norm_eps",
                 "num_attention_heads must be a whole number >= 1, not True", "type_vocab_size"):  # fmt: skip
        assert part in str(error.value)
    with pytest.raises(UserError, match="max_position_embeddings 2 leaves no room: texts begin at 2"):
        roberta_config(tiny_config("xlm-roberta", max_position_embeddings=2))
