"""Parameters and activations lie where the rules say, on eight devices, and the numbers are those of one device."""

import json
import re
import weakref
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.decoder_config import DecoderConfig, Rope
from mig_jax.models.checkpoints.tensors import safetensors
from mig_jax.models.networks import weights
from mig_jax.models.networks.decoder import Decoder, weight_map
from mig_jax.models.networks.layers import Build
from mig_jax.models.networks.sharding import MESH_AXES, RULES, axes_of, init_model, model_mesh, partition
from mig_jax.models.networks.weights import load_model, save_model

CONFIG = DecoderConfig(
    vocab_size=96, hidden_size=32, num_layers=2, num_heads=8, num_kv_heads=4, head_dim=8, intermediate_size=64,
    max_positions=64, eps=1e-5, activation="silu", rope=Rope(), windows=(None, 6), qkv_bias=True, out_bias=False,
    mlp_bias=False, qk_norm=True, tied=False,
)  # fmt: skip

# Where each kind of parameter lies on a mesh of fsdp = 2 and tensor = 2, layer by layer; what is not named is whole.
EXPECTED = {
    "embed.embedding": P("tensor", "fsdp"),
    "head.kernel": P("fsdp", "tensor"),
    "attention.query.kernel": P("fsdp", "tensor", None),
    "attention.key.kernel": P("fsdp", "tensor", None),
    "attention.value.kernel": P("fsdp", "tensor", None),
    "attention.query.bias": P("tensor", None),
    "attention.key.bias": P("tensor", None),
    "attention.value.bias": P("tensor", None),
    "attention.output.kernel": P("tensor", None, "fsdp"),
    "mlp.gate.kernel": P("fsdp", "tensor"),
    "mlp.up.kernel": P("fsdp", "tensor"),
    "mlp.down.kernel": P("tensor", "fsdp"),
}


def build(config: DecoderConfig = CONFIG) -> Decoder:
    return Decoder(config, Build(), rngs=nnx.Rngs(3))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Random weights in a file, and the model that they make on one device."""
    folder = tmp_path_factory.mktemp("checkpoint")
    model = init_model(build)
    save_model(model, weight_map(CONFIG), folder)
    return safetensors([folder / "model.safetensors"]), model


def variables(model: nnx.Module) -> dict[str, nnx.Variable]:
    return {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(nnx.state(model))}


def per_device(model: nnx.Module) -> dict[jax.Device, int]:
    """Bytes of parameters on each device."""
    total: dict[jax.Device, int] = {}
    for leaf in variables(model).values():
        for shard in leaf.get_value().addressable_shards:
            total[shard.device] = total.get(shard.device, 0) + shard.data.nbytes
    return total


def forward(model: nnx.Module, mesh=None):
    graphdef, state = nnx.split(model)

    @jax.jit
    def run(state, ids, segments):
        out = nnx.merge(graphdef, state)(ids, segments, hidden_states=True)
        return out.hidden, nnx.merge(graphdef, state).logits(out.last_BxLxD)

    rng = np.random.default_rng(0)
    ids = rng.integers(0, CONFIG.vocab_size, (8, 16))
    segments = np.repeat(np.array([[1] * 9 + [2] * 5 + [0] * 2]), 8, axis=0)
    if mesh is None:
        return run(state, ids, segments)
    with jax.set_mesh(mesh):
        return run(state, ids, segments)


def test_every_large_parameter_names_its_axes():
    for name, leaf in variables(nnx.eval_shape(build)).items():
        if leaf.get_value().ndim > 1:
            assert axes_of(leaf) != (None,) * leaf.get_value().ndim, name
        assert set(axes_of(leaf)) <= set(RULES), name


def test_parameters_lie_by_the_table(checkpoint):
    mesh = model_mesh(data=2, fsdp=2, tensor=2)
    for name, leaf in variables(load_model(build, weight_map(CONFIG), checkpoint[0], mesh)).items():
        expected = EXPECTED.get(re.sub(r"layers\.\d+\.", "", name), P(*[None] * leaf.get_value().ndim))
        assert leaf.get_value().sharding.spec == expected, name
        assert leaf.get_value().sharding.mesh == mesh, name


@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2), (1, 4, 2)])
def test_states_are_those_of_one_device(checkpoint, shape):
    """float32 sums over 32 to 64 products are cut into up to 8 parts: rounding, 1e-6 of states of size 4."""
    mesh = model_mesh(*shape)
    hidden, logits = forward(load_model(build, weight_map(CONFIG), checkpoint[0], mesh), mesh)
    plain, plain_logits = forward(checkpoint[1])
    for mine, theirs in zip((*hidden, logits), (*plain, plain_logits), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    rows = shape[0] * shape[1]
    for state in hidden:
        assert {shard.data.shape[0] for shard in state.addressable_shards} == {8 // rows}


def test_the_work_inside_a_layer_is_cut_too(checkpoint):
    """With tensor = 4 a device holds the gate of 16 of 64 features, and two of eight heads, for its rows."""
    mesh = model_mesh(data=2, fsdp=1, tensor=4)
    model = load_model(build, weight_map(CONFIG), checkpoint[0], mesh)
    graphdef, state = nnx.split(model)
    ids = np.zeros((8, 16), np.int32)
    with jax.set_mesh(mesh):
        text = jax.jit(lambda s, i: nnx.merge(graphdef, s)(i, i + 1).last_BxLxD).lower(state, ids).compile().as_text()
    assert re.search(r"f32\[4,16,16\]|f32\[64,16\]", text)  # 8 / 2 rows of 16 tokens, 64 / 4 features
    assert not re.search(r"f32\[\d+,16,64\]|f32\[(64|128),64\]", text)  # never a row with all its features
    assert re.search(r"f32\[4,16,2,8\]|f32\[4,2,16,8\]|f32\[4,1,2,16,8\]", text)  # 8 / 4 heads of 8


def test_a_checkpoint_that_no_device_could_hold(checkpoint):
    """On eight devices each holds an eighth of the tables and maps, and the small norms: never 1/7 of all."""
    whole = sum(leaf.get_value().nbytes for leaf in variables(checkpoint[1]).values())
    for shape in ((1, 8, 1), (1, 4, 2), (1, 2, 4)):
        held = per_device(load_model(build, weight_map(CONFIG), checkpoint[0], model_mesh(*shape)))
        assert len(held) == 8
        assert max(held.values()) < whole / 7, shape
    copies = per_device(load_model(build, weight_map(CONFIG), checkpoint[0], model_mesh(8)))
    assert set(copies.values()) == {whole}


def test_one_tensor_at_a_time_is_on_the_host(checkpoint, monkeypatch):
    """What was read is gone before the next is. (On a CPU an array may lie in the memory that was read: so copies.)"""
    alive, most = weakref.WeakSet(), []

    class Read(np.ndarray):
        """An array that can be watched."""

        __hash__ = object.__hash__

    def watched(tensor):
        def read():
            most.append(len(alive))
            value = tensor.read().view(Read)
            alive.add(value)
            return value

        return tensor._replace(read=read)

    real = weights.place
    monkeypatch.setattr(weights, "place", lambda value, goal: real(np.array(value, subok=False), goal))
    load_model(build, weight_map(CONFIG), [watched(tensor) for tensor in checkpoint[0]], model_mesh(1, 8))
    assert len(most) == len(checkpoint[0])
    assert max(most) <= 1  # the one before may be held until its name is given to the next


def test_no_device_is_given_a_whole_table(checkpoint, monkeypatch):
    """Not at the end only: each piece that goes to a device is that device's part."""
    given = []
    real = jax.make_array_from_callback

    def watched(shape, sharding, pieces):
        def piece(index):
            part = pieces(index)
            given.append((part.size, np.prod(shape)))
            return part

        return real(shape, sharding, piece)

    monkeypatch.setattr(jax, "make_array_from_callback", watched)
    monkeypatch.setattr(jax, "device_put", None)
    load_model(build, weight_map(CONFIG), checkpoint[0], model_mesh(1, 4, 2))
    large = [(part, whole) for part, whole in given if whole >= 32 * 32]
    assert len(large) >= 8 * 15  # two tables and seven maps in each of two layers, but for what is smaller
    assert all(part * 8 == whole for part, whole in large)


def test_random_weights_are_made_where_they_lie():
    mesh = model_mesh(1, 4, 2)
    model = init_model(build, mesh)
    whole = sum(leaf.get_value().nbytes for leaf in variables(model).values())
    assert max(per_device(model).values()) < whole / 7
    plain = init_model(build)
    for name, leaf in variables(model).items():  # the same numbers, wherever they are made
        np.testing.assert_array_equal(leaf.get_value(), variables(plain)[name].get_value(), err_msg=name)


def test_saved_from_eight_devices_it_is_the_same_file(checkpoint, tmp_path):
    model = load_model(build, weight_map(CONFIG), checkpoint[0], model_mesh(1, 4, 2))
    files = save_model(model, weight_map(CONFIG), tmp_path, shard_bytes=20_000)
    assert len(files) > 2
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    again = {tensor.key: tensor for tensor in safetensors(files)}
    assert index["weight_map"] == {key: tensor.file.name for key, tensor in again.items()}
    assert again.keys() == {tensor.key for tensor in checkpoint[0]}
    for tensor in checkpoint[0]:
        np.testing.assert_array_equal(again[tensor.key].read(), tensor.read(), err_msg=tensor.key)


def test_an_axis_that_cannot_be_cut_evenly_stays_whole():
    sizes = dict(zip(MESH_AXES, (2, 2, 8), strict=True))
    assert partition(("embed", "heads", None), (32, 16, 8), sizes) == P("fsdp", "tensor", None)
    assert partition(("embed", "heads", None), (32, 4, 8), sizes) == P("fsdp", None, None)
    assert partition(("batch", None), (6, 8), sizes) == P(None, None)  # 2 x 2 devices do not divide 6 rows
    assert partition(("batch", None), (8, 8), sizes) == P(("data", "fsdp"), None)
    assert partition(("batch",), (8,), {"data": 1, "fsdp": 1, "tensor": 1}) == P(None)


def test_few_key_heads_on_many_devices(tmp_path):
    """Two key/value heads, tensor = 8: they are whole on every device, and the states are right."""
    config = replace(CONFIG, num_kv_heads=2)
    mesh = model_mesh(1, 1, 8)
    plain, cut = init_model(lambda: build(config)), init_model(lambda: build(config), mesh)
    assert cut.layers[0].attention.key.kernel[...].sharding.spec == P(None, None, None)
    assert cut.layers[0].attention.query.kernel[...].sharding.spec == P(None, "tensor", None)
    for mine, theirs in zip(forward(cut, mesh)[0], forward(plain)[0], strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_a_mesh_larger_than_the_machine():
    with pytest.raises(UserError, match=r"mesh\.data=2, mesh\.fsdp=4, mesh\.tensor=2: need 16 devices, there are 8"):
        model_mesh(2, 4, 2)
    assert dict(model_mesh(fsdp=2).shape) == {"data": 4, "fsdp": 2, "tensor": 1}


def test_gradients_are_those_of_one_device(checkpoint):
    """What training needs: with remat, on a mesh; gradients are sums over 8 x 16 tokens, cut among devices."""

    def gradient(model, mesh):
        graphdef, state = nnx.split(model)

        def loss(state):
            ids = jnp.arange(128).reshape(8, 16) % CONFIG.vocab_size
            out = nnx.merge(graphdef, state)(ids, jnp.ones_like(ids), remat=True)
            return jnp.mean(out.last_BxLxD**3)

        if mesh is None:
            return jax.jit(jax.grad(loss))(state)
        with jax.set_mesh(mesh):
            return jax.jit(jax.grad(loss))(state)

    mesh = model_mesh(2, 2, 2)
    cut = dict(nnx.to_flat_state(gradient(load_model(build, weight_map(CONFIG), checkpoint[0], mesh), mesh)))
    for path, leaf in nnx.to_flat_state(gradient(checkpoint[1], None)):
        np.testing.assert_allclose(cut[path].get_value(), leaf.get_value(), atol=1e-5, err_msg=str(path))
