"""The encoders against transformers on torch, on fresh random configurations, and the way back; needs torch."""

import json
import shutil

import jax
import numpy as np
import pytest
from tiny_encoders import MODULES, load

from mig_jax.models.networks.weights import save_model

torch = pytest.importorskip("torch", reason="the lane that compares with torch: make torch, then make test-torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # transformers' own

KINDS = list(MODULES)
ATOL = 1e-4  # float32 in another order of summation, over up to 3 layers of states of size 1 to 10


def random_config(kind: str, seed: int):
    rng = np.random.default_rng([KINDS.index(kind), seed])
    heads = int(rng.choice([1, 2, 3, 5]))
    fields = {
        "vocab_size": int(rng.integers(20, 90)),
        "hidden_size": heads * int(rng.choice([4, 8, 12])),
        "num_hidden_layers": int(rng.integers(1, 4)),
        "num_attention_heads": heads,
        "intermediate_size": int(rng.integers(10, 70)),
        "max_position_embeddings": int(rng.integers(160, 200)),
        "layer_norm_eps": float(rng.choice([1e-12, 1e-5, 1e-3])),
        "hidden_act": str(rng.choice(["gelu", "gelu_new", "relu", "silu"])),
        "type_vocab_size": int(rng.integers(1, 4)),
        "pad_token_id": int(rng.integers(0, 5)) if "roberta" in kind else {"bert": 0, "mpnet": 1}[kind],
    }
    if kind == "mpnet":
        del fields["type_vocab_size"]
    return transformers.AutoConfig.for_model(kind, **fields)


def random_model(auto, config, seed: int):
    """Every parameter random, and larger than at the start of a training."""
    torch.manual_seed(seed)
    model = auto.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.normal_(1.0 if "LayerNorm.weight" in name else 0.0, 0.3)
    return model


def random_texts(config, seed: int, *, left: bool) -> tuple[np.ndarray, np.ndarray]:
    """Five texts of 1 to 150 tokens and the attention mask."""
    rng = np.random.default_rng(seed)
    words = np.delete(np.arange(config.vocab_size), config.pad_token_id)
    lengths = [150, 1, 2, *rng.integers(3, 150, 2)]
    place = np.arange(150)[::-1] if left else np.arange(150)
    mask = (place < np.array(lengths)[:, None]).astype(np.int32)
    return np.where(mask, rng.choice(words, mask.shape), config.pad_token_id).astype(np.int32), mask


def torch_outputs(model, ids: np.ndarray, mask: np.ndarray):
    """BERT alone does not count its positions from the first token, so it is told."""
    told = {}
    if model.config.model_type == "bert":
        told["position_ids"] = torch.tensor(np.maximum(mask.cumsum(1) - 1, 0))
    with torch.no_grad():
        return model(
            torch.tensor(ids).long(), attention_mask=torch.tensor(mask).long(), output_hidden_states=True, **told
        )


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_is_torch_s_and_the_way_back_is_exact(tmp_path, kind, seed):
    config = random_config(kind, seed)
    reference = random_model(transformers.AutoModel, config, seed)
    reference.save_pretrained(tmp_path)
    model = load(tmp_path, pooler=True)
    run = jax.jit(lambda ids, mask: model(ids, mask, hidden_states=True))
    for left in (False, True):
        ids, mask = random_texts(config, seed, left=left)
        theirs, mine = torch_outputs(reference, ids, mask), run(ids, mask)
        assert len(mine.hidden) == len(theirs.hidden_states) == config.num_hidden_layers + 1
        for n, (a, b) in enumerate(zip(mine.hidden, theirs.hidden_states, strict=True)):
            np.testing.assert_allclose(a * mask[..., None], b.numpy() * mask[..., None], atol=ATOL, err_msg=f"{n}")
        if not left:  # torch pools what stands first, padding or not
            np.testing.assert_allclose(mine.pooled_BxD, theirs.pooler_output.numpy(), atol=ATOL)

    back = tmp_path / "back"
    back.mkdir()
    save_model(model, MODULES[kind].weight_map(pooler=True), back)
    shutil.copy(tmp_path / "config.json", back)
    again, report = transformers.AutoModel.from_pretrained(
        back, attn_implementation="eager", output_loading_info=True, dtype="float32"
    )
    assert not any(report[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    assert again.state_dict().keys() == reference.state_dict().keys()
    for name, value in again.state_dict().items():
        assert torch.equal(value, reference.state_dict()[name]), name
    assert torch.equal(torch_outputs(again.eval(), ids, mask).last_hidden_state, theirs.last_hidden_state)


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_with_a_head_for_another_task(tmp_path, kind):
    """Their keys have the family's prefix, and the head is left out."""
    config = random_config(kind, seed=9)
    reference = random_model(transformers.AutoModelForMaskedLM, config, seed=9)
    reference.save_pretrained(tmp_path)
    assert "architectures" in json.loads((tmp_path / "config.json").read_text())
    ids, mask = random_texts(config, 9, left=False)
    theirs = torch_outputs(reference, ids, mask).hidden_states[-1].numpy()
    mine = jax.jit(load(tmp_path))(ids, mask).last_BxLxD
    np.testing.assert_allclose(mine * mask[..., None], theirs * mask[..., None], atol=ATOL)
