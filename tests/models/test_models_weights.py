"""The weight map is total, and all that is wrong with a checkpoint is said at once."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file
from test_models_bert import load_bert
from tiny_encoders import MODULES, load, tiny_config, tiny_weights, write

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.encoder_config import bert_config
from mig_jax.models.checkpoints.tensors import safetensors
from mig_jax.models.networks import bert
from mig_jax.models.networks.encoder import Encoder
from mig_jax.models.networks.weights import WeightMap, WeightRule, load_model, save_model


def flat(model: nnx.Module) -> dict[str, np.ndarray]:
    return {".".join(map(str, p)): np.asarray(v.get_value()) for p, v in nnx.to_flat_state(nnx.state(model))}


def assert_same(a: nnx.Module, b: nnx.Module) -> None:
    a, b = flat(a), flat(b)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_every_tensor_lands_where_it_belongs(tiny):
    """Each number of the file is found once in the model: nothing is invented, doubled or left at a random start."""
    got = flat(load_bert(tiny.folder))
    assert len(got) == len(tiny.tensors)
    key = "encoder.layer.1.attention.self.key.weight"
    np.testing.assert_array_equal(got["layers.1.attention.key.kernel"], tiny.tensors[key].T.reshape(24, 3, 8))
    mine = np.sort(np.concatenate([v.ravel() for v in got.values()]))
    np.testing.assert_array_equal(mine, np.sort(np.concatenate([v.ravel() for v in tiny.tensors.values()])))


def test_prefix_old_names_and_task_heads(tiny):
    plain = load_bert(tiny.folder)
    old = {
        "bert." + k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
        for k, v in tiny.tensors.items()
    }
    old |= {
        "cls.predictions.bias": np.zeros(30, np.float32),
        "bert.pooler.dense.bias": np.zeros(24, np.float32),
        "bert.embeddings.position_ids": np.arange(64)[None],
        "classifier.weight": np.zeros((2, 24), np.float32),
    }
    tiny.write(old)
    assert_same(plain, load_bert(tiny.folder))


def test_everything_wrong_is_said_at_once(tiny):
    tensors = dict(tiny.tensors)
    del tensors["encoder.layer.0.output.dense.bias"]
    tensors["encoder.layer.1.output.dense.weight"] = np.zeros((24, 41), np.float32)
    tensors["embeddings.LayerNorm.bias"] = np.zeros(24, np.int32)
    tensors["bert.embeddings.LayerNorm.weight"] = np.zeros(24, np.float32)
    tensors["encoder.layer.0.adapter.weight"] = np.zeros((2, 3), np.float32)
    tensors["encoder.layer.2.output.dense.bias"] = np.zeros(24, np.float32)
    tiny.write(tensors)
    with pytest.raises(UserError) as error:
        load_bert(tiny.folder)
    lines = str(error.value).splitlines()
    assert str(tiny.folder) in lines[0]
    said = [
        "no tensor for layers.0.down.bias [24]: encoder.layer.0.output.dense.bias is missing",
        "encoder.layer.1.output.dense.weight: shape [24, 41], not [24, 40], for layers.1.down.kernel",
        "embeddings.LayerNorm.bias: type I32, not a float of 16, 32 or 64 bits",
        "bert.embeddings.LayerNorm.weight and embeddings.LayerNorm.weight: 2 tensors for embeddings.norm.scale",
        "unexpected tensor encoder.layer.0.adapter.weight [2, 3]",
        "encoder.layer.2.output.dense.bias: this model has no layers.2.down.bias",
    ]
    for part in said:
        assert sum(part in line for line in lines) == 1, part
    assert len(lines) == 1 + len(said)


def test_a_model_with_a_pooler_needs_one(tiny):
    with pytest.raises(UserError, match=r"no tensor for pooler\.kernel \[24, 24\]"):
        load_bert(tiny.folder, pooler=True)


@pytest.mark.parametrize("keep", [0, 4, 300, -1])
def test_truncated_file(tiny, keep):
    file = tiny.folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"model\.safetensors: cut short or not safetensors \(\d+ bytes"):
        load_bert(tiny.folder)


def test_all_bad_files_of_a_checkpoint_are_named(tiny):
    (tiny.folder / "a.safetensors").write_bytes(b"<html>404</html>")
    (tiny.folder / "b.bin").write_bytes(b"\x80\x04")
    files = [tiny.folder / name for name in ("a.safetensors", "model.safetensors", "b.bin", "c.safetensors")]
    with pytest.raises(UserError) as error:
        safetensors(files)
    lines = str(error.value).splitlines()
    assert [any(name in line for line in lines) for name in ("a.saf", "model.saf", "b.bin", "c.saf")] == [1, 0, 1, 1]
    assert "pickled" in str(error.value)
    assert "no such file" in str(error.value)


def test_shards_are_one_checkpoint(tiny):
    plain = load_bert(tiny.folder)
    keys = sorted(tiny.tensors)
    files = []
    for part in range(3):
        files.append(tiny.folder / f"model-{part}.safetensors")
        save_file({key: tiny.tensors[key] for key in keys[part::3]}, files[-1])
    config = bert_config(json.loads((tiny.folder / "config.json").read_text()), "config.json")
    assert_same(plain, load_model(lambda: Encoder(config, rngs=nnx.Rngs(0)), bert.weight_map(), safetensors(files)))


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_floats_become_float32(tmp_path, dtype):
    weight = np.arange(6).reshape(3, 2).astype(dtype)
    save_file({"w": weight}, tmp_path / "w.safetensors")
    model = load_model(
        lambda: nnx.Linear(2, 3, use_bias=False, rngs=nnx.Rngs(0)),
        WeightMap((WeightRule("w", "kernel", "outputs"),)),
        safetensors([tmp_path / "w.safetensors"]),
    )
    assert model.kernel[...].dtype == np.float32
    np.testing.assert_array_equal(model.kernel[...], weight.astype(np.float32).T)


@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("shard_bytes", [10**9, 6000])
def test_what_is_saved_is_what_was_loaded(tmp_path, kind, shard_bytes):
    config = tiny_config(kind)
    tensors = tiny_weights(config, seed=5)
    folder = write(tmp_path / kind, config, tensors)
    pooler = {"pooler.dense.weight": np.eye(24, dtype=np.float32), "pooler.dense.bias": np.ones(24, np.float32)}
    for pooled in (False, True):
        tensors |= pooler if pooled else {}
        write(folder, config, tensors)
        weights = MODULES[kind].weight_map(pooler=pooled)
        files = save_model(load(folder, pooler=pooled), weights, tmp_path, shard_bytes=shard_bytes)
        assert (len(files) > 1) == (shard_bytes == 6000)
        assert_equal_tensors(files, tensors)
        if len(files) > 1:
            index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
            assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
            assert {key: tmp_path / name for key, name in index["weight_map"].items()} == {
                key: file for file in files for key in load_file(file)
            }


def assert_equal_tensors(files: list[Path], tensors: dict[str, np.ndarray]) -> None:
    saved = [load_file(file) for file in files]
    assert sorted(key for part in saved for key in part) == sorted(tensors)
    for part in saved:
        for key, value in part.items():
            assert value.dtype == tensors[key].dtype
            np.testing.assert_array_equal(value, tensors[key], err_msg=key)


@pytest.mark.parametrize(("kind", "base"), [("mpnet", "mpnet."), ("xlm-roberta", "roberta."), ("roberta", "roberta.")])
def test_prefix_and_task_heads_of_the_other_families(tmp_path, kind, base):
    config = tiny_config(kind)
    tensors = tiny_weights(config, seed=6)
    plain = load(write(tmp_path / "plain", config, tensors))
    more = {base + key: value for key, value in tensors.items()}
    more |= {
        base + "embeddings.position_ids": np.arange(66)[None],
        base + "pooler.dense.bias": np.zeros(24, np.float32),
    }
    more |= {"lm_head.bias": np.zeros(30, np.float32), "classifier.out_proj.bias": np.zeros(2, np.float32)}
    assert_same(plain, load(write(tmp_path / "more", config, more)))
    more[base + "encoder.layer.0.adapter.bias"] = np.zeros(24, np.float32)
    with pytest.raises(UserError, match=f"unexpected tensor {base}encoder.layer.0.adapter.bias"):
        load(write(tmp_path / "more", config, more))
