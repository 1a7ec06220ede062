"""MPNet: its buckets, its bias, and every layer against a forward pass in plain NumPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_encoders import assert_rows_are, bucket, in_rows, load, tiny_config, tiny_weights, write

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.encoder_config import mpnet_config
from mig_jax.models.networks import mpnet


def test_buckets():
    distance = np.arange(-600, 601)
    got = mpnet.bucket(distance)
    np.testing.assert_array_equal(got, [bucket(int(d)) for d in distance])
    by_hand = {0: 0, -1: 1, 1: 17, -7: 7, -8: 8, -11: 8, -12: 9, -15: 9, -16: 10, -22: 10, -23: 11, -31: 11, -32: 12,
               -63: 13, -64: 14, -90: 14, -91: 15, -512: 15, 8: 24, 16: 26, 511: 31}  # fmt: skip
    assert {d: int(got[d + 600]) for d in by_hand} == by_hand


def test_buckets_are_the_formula_of_t5():
    for n in range(8, 600):
        real = 8 * math.log(n / 8) / math.log(16)
        if abs(real - round(real)) > 1e-9:  # at 8, 16, 32, 64, 128 float64 may fall to either side
            assert mpnet.bucket(np.array(-n)) == min(15, 8 + math.floor(real))


@pytest.fixture
def tiny_mpnet(tmp_path):
    config = tiny_config("mpnet")
    tensors = tiny_weights(config, seed=11)
    return config, tensors, write(tmp_path / "mpnet", config, tensors)


def test_every_layer_is_the_paper_s_alone_packed_and_padded(tiny_mpnet):
    config, tensors, folder = tiny_mpnet
    long = [int(i) for i in np.random.default_rng(0).integers(2, 30, 37)]  # wide buckets on both sides
    rows = [[long], [[0, 5, 6, 7, 2], [0, 8, 2], [0, 2], long[:20]]]
    assert_rows_are(config, tensors, load(folder), rows, 40)


def test_bfloat16_is_near(tiny_mpnet):
    """See the same test of BERT."""
    _, _, folder = tiny_mpnet
    given = in_rows([[[0, 5, 6, 7, 2], [0, 8, 2]]], 8)
    got, near = (jax.jit(load(folder, dtype=dtype))(*given).last_BxLxD for dtype in ("float32", "bfloat16"))
    assert near.dtype == jnp.bfloat16
    assert 0 < np.abs(np.asarray(near, np.float32) - got).mean() < 0.03


def test_config():
    assert mpnet_config(tiny_config("mpnet", max_position_embeddings=514)).max_positions == 512
    raw = tiny_config("mpnet", relative_attention_num_buckets=64, hidden_act="swish", vocab_size=0)
    del raw["num_hidden_layers"]
    with pytest.raises(UserError) as error:
        mpnet_config(raw, "here/config.json")
    for part in ("here/config.json", "relative_attention_num_buckets is 64; must be 32", "swish", "vocab_size",
                 "num_hidden_layers must be a whole number >= 1, not None"):  # fmt: skip
        assert part in str(error.value)
    with pytest.raises(UserError, match="max_position_embeddings 2 leaves no room: texts begin at 2"):
        mpnet_config(tiny_config("mpnet", max_position_embeddings=2))
