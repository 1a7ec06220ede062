"""Fresh random decoders against transformers: both ways through safetensors, layer by layer, and in generation."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the lane that compares with torch: make torch, then make test-torch")
transformers = pytest.importorskip("transformers")

from decoder_cases import Letters, language_model, load_decoder, random_decoder  # noqa: E402
from flax import nnx  # noqa: E402

from mig_jax.models.checkpoints.decoder_config import DecoderConfig  # noqa: E402
from mig_jax.models.inference.generate import generate  # noqa: E402
from mig_jax.models.networks.decoder import weight_map  # noqa: E402
from mig_jax.models.networks.weights import save_model  # noqa: E402

CLOSE = 1e-4  # float32, sums of up to 96 products in another order, states up to 5
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}  # fmt: skip
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
CASES = {
    "llama": ("Llama", {}),
    "llama-scaled-biased": ("Llama", {"rope_parameters": LLAMA3, "attention_bias": True, "mlp_bias": True}),
    "llama-linear-tied": ("Llama", {"rope_parameters": LINEAR, "tie_word_embeddings": True, "head_dim": 10}),
    "mistral-window": ("Mistral", {"sliding_window": 7, "head_dim": 16}),
    "mistral": ("Mistral", {"sliding_window": None, "num_key_value_heads": 1}),
    "qwen2": ("Qwen2", {"num_key_value_heads": 4}),
    "qwen2-window": ("Qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2,
                               "tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "qwen3-window-biased": ("Qwen3", {"head_dim": 8, "attention_bias": True, "use_sliding_window": True,
                                      "sliding_window": 6, "max_window_layers": 1, "hidden_act": "gelu"}),
}  # fmt: skip


def torch_model(case: str):
    """Random weights, norms and biases too, so large that tokens differ; nothing ends a text."""
    family, changes = CASES[case]
    config = getattr(transformers, f"{family}Config")(
        **{
            "vocab_size": 33, "hidden_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4,
            "num_key_value_heads": 2, "intermediate_size": 96, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
            "bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0, "attn_implementation": "eager",
        }
        | changes
    )  # fmt: skip
    torch.manual_seed(list(CASES).index(case))
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            spread = 0.3 if "norm" in name or "bias" in name or "embed" in name else value.shape[-1] ** -0.5
            value.normal_(1.0 if "norm" in name else 0.0, spread)
    return model


@pytest.fixture(params=CASES, scope="module")
def pair(request, tmp_path_factory):
    """torch's model, and ours from the folder that torch wrote."""
    folder = tmp_path_factory.mktemp(request.param)
    model = torch_model(request.param)
    model.save_pretrained(folder)
    return model, load_decoder(folder), folder


def padded(side: str) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask of three texts of 5, 17 and 24 tokens."""
    rng = np.random.default_rng(0)
    id_BxL, mask_BxL = np.zeros((2, 3, 24), np.int32)
    for row, length in enumerate((5, 17, 24)):
        at = slice(0, length) if side == "right" else slice(24 - length, 24)
        id_BxL[row, at], mask_BxL[row, at] = rng.integers(3, 33, length), 1
    return id_BxL, mask_BxL


def in_torch(model, id_BxL, mask_BxL):
    position = torch.tensor(np.maximum(np.cumsum(mask_BxL, 1) - 1, 0))
    with torch.no_grad():
        out = model(
            input_ids=torch.tensor(id_BxL).long(),
            attention_mask=torch.tensor(mask_BxL).long(),
            position_ids=position,
            output_hidden_states=True,
        )
    return [hidden.numpy() for hidden in out.hidden_states], out.logits.numpy()


@nnx.jit
def run(model, id_BxL, mask_BxL):
    states = model(id_BxL, mask_BxL, hidden_states=True)
    return states.hidden, model.logits(states.last_BxLxD)


@pytest.mark.parametrize("side", ["right", "left"])
def test_each_layer_and_the_logits_are_torch_s(pair, side):
    theirs, ours, _ = pair
    id_BxL, mask_BxL = padded(side)
    expected, logits = in_torch(theirs, id_BxL, mask_BxL)
    hidden, mine = run(ours, id_BxL, mask_BxL)
    real = mask_BxL[:, :, None]
    assert len(hidden) == len(expected) == 4
    for layer, (one, two) in enumerate(zip(hidden, expected, strict=True)):
        assert np.abs(two * real).max() > 0.1
        np.testing.assert_allclose(one * real, two * real, atol=CLOSE, err_msg=f"layer {layer}")
    np.testing.assert_allclose(mine * real, logits * real, atol=CLOSE)


def test_what_we_write_transformers_reads(pair, tmp_path):
    """Back to torch, in shards with an index: the same numbers, and no key missing or left over."""
    theirs, ours, _ = pair
    files = save_model(ours, weight_map(ours.config), tmp_path, shard_bytes=60_000)
    assert len(files) > 1
    theirs.config.save_pretrained(tmp_path)
    again, info = type(theirs).from_pretrained(
        tmp_path, attn_implementation="eager", dtype=torch.float32, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    for (name, one), (_, two) in zip(theirs.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(one, two), name
    rows = padded("right")
    np.testing.assert_array_equal(in_torch(again.eval(), *rows)[1], in_torch(theirs, *rows)[1])


def test_random_weights_of_ours_run_in_torch(pair, tmp_path):
    """The other direction from the start: weights that torch never had."""
    theirs, _, _ = pair
    raw = json.loads((pair[2] / "config.json").read_text())
    ours = random_decoder(DecoderConfig.from_json(raw), seed=9)
    save_model(ours, weight_map(ours.config), tmp_path)
    theirs.config.save_pretrained(tmp_path)
    again = type(theirs).from_pretrained(tmp_path, attn_implementation="eager", dtype=torch.float32).eval()
    id_BxL, mask_BxL = padded("right")
    expected = in_torch(again, id_BxL, mask_BxL)[1]
    real = mask_BxL[:, :, None]
    np.testing.assert_allclose(run(ours, id_BxL, mask_BxL)[1] * real, expected * real, atol=CLOSE)


class Endless(Letters):
    eos_ids = frozenset()


def test_twenty_tokens_are_torch_s(pair):
    """The most likely ones, after three prompts of other lengths, in one batch and with a cache on both sides."""
    theirs, ours, _ = pair
    id_BxL, mask_BxL = padded("left")
    with torch.no_grad():
        out = theirs.generate(
            torch.tensor(id_BxL).long(),
            attention_mask=torch.tensor(mask_BxL).long(),
            max_new_tokens=20,
            do_sample=False,
        )
    prompts = [ids[mask > 0].tolist() for ids, mask in zip(id_BxL, mask_BxL, strict=True)]
    found = generate(language_model(ours, Endless()), prompts, max_new_tokens=20)
    assert [one.tokens.tolist() for one in found] == out[:, 24:].tolist()
