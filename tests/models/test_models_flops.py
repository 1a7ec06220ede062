"""Operations of a batch, against what the compiler counts of the same products."""

import jax
import numpy as np
import pytest
from decoder_cases import language_model, random_decoder, read
from flax import nnx

from mig_jax.models.checkpoints.checkpoint import EmbedderSpec
from mig_jax.models.inference.embed import load_embedder
from mig_jax.models.inference.flops import forward_flops, matmul_rate

ROWS, WIDTH = 4, 64


def compiled_flops(loaded) -> float:
    ids = np.ones((ROWS, WIDTH), np.int32)

    def run(state, ids):
        return nnx.merge(loaded.graphdef, state)(ids, ids).last_BxLxD

    return jax.jit(run).lower(loaded.state, ids).compile().cost_analysis()["flops"]


def test_of_an_encoder_by_hand_and_by_the_compiler(tiny):
    loaded = load_embedder(EmbedderSpec(name="tiny", path=tiny.folder)).loaded
    config = load_embedder(EmbedderSpec(name="tiny", path=tiny.folder)).config
    dim, ffn, layers = config.hidden_size, config.intermediate_size, config.num_layers
    weights = layers * (4 * dim * dim + 2 * dim * ffn)
    ours = forward_flops(loaded, config, ROWS, WIDTH)
    pooler = 2 * dim * dim * ROWS * WIDTH if "pooler" in str(loaded.state) else 0
    assert ours - pooler == 2 * weights * ROWS * WIDTH + 4 * layers * dim * ROWS * WIDTH**2
    # The compiler counts norms, activations and softmax too, which are much of a model 24 numbers wide.
    assert 0.5 < ours / compiled_flops(loaded) <= 1.0


def test_of_a_decoder_without_the_head():
    model = language_model(random_decoder(read(hidden_size=64, intermediate_size=160)))
    config = model.config
    across, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    weights = config.num_layers * (64 * (2 * across + 2 * kv) + 3 * 64 * 160)
    ours = forward_flops(model.loaded, config, ROWS, WIDTH)
    assert ours == 2 * weights * ROWS * WIDTH + 2 * config.num_layers * across * ROWS * WIDTH**2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_rate_is_a_rate(dtype):
    assert 1e6 < matmul_rate(dtype, size=64, rounds=2) < 1e15
