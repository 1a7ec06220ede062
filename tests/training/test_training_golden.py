"""Updates against plain torch and peft: the recorded runs on tiny Llama and Qwen2, to the tolerances of their README.

The tolerances are about ten times what torch itself differs by between float32 and float64.
"""

import json
from contextlib import nullcontext

import jax
import numpy as np
import pytest
from flax import nnx

from mig_jax.models.checkpoints.architectures import ARCHITECTURES
from mig_jax.models.checkpoints.tensors import safetensors
from mig_jax.models.networks.families import FAMILIES
from mig_jax.models.networks.layers import Build
from mig_jax.models.networks.sharding import model_mesh
from mig_jax.models.networks.weights import _expanded, load_model
from mig_jax.models.tokenizers.tokens import Tokens
from mig_jax.training.lora import AdaptedLinear, Lora, add_adapters, merge_adapters
from mig_jax.training.optimizer import Optimizer
from mig_jax.training.packing import Rows, arrays, plan_update
from mig_jax.training.schedule import make_schedule
from mig_jax.training.step import init_state, make_step, place_batch, update, zero_sums

PEAK, STEPS, BATCH = 1e-4, 8, 8
LORA = Lora(8, 16.0, ("q_proj", "v_proj"))
RUNS = {
    "a": {},
    "b": {"micro_batch": 2},
    "c": {"optimizer": Optimizer(weight_decay=0.1)},
    "d": {"schedule": make_schedule(PEAK, "cosine", STEPS, warmup_steps=2)},
    "e": {"schedule": make_schedule(1e-3, "linear", STEPS, warmup_ratio=0.03), "lora": LORA},
    "f": {"all_tokens": True},
}


class Tiny:
    """A stored tiny model and its rows."""

    def __init__(self, folder, data):
        config = json.loads((folder / "config.json").read_text())
        self.family = FAMILIES[config["model_type"]]
        self.config = ARCHITECTURES[config["model_type"]].read_config(config, str(folder))
        self.weights = self.family.weights(self.config, True)
        self.tensors = safetensors([folder / "model.safetensors"])
        stored = np.load(data)
        self.rows = Rows(Tokens(stored["ids"].astype(np.int32), stored["ptr"].astype(np.int64)), stored["mask"] > 0)

    def model(self, mesh=None) -> nnx.Module:
        build = Build("float32", "plain")
        return load_model(lambda: self.family.build(self.config, build, True), self.weights, self.tensors, mesh)

    def flat(self, model: nnx.Module) -> dict[str, np.ndarray]:
        """Key of a checkpoint -> parameter, as this package lays it out."""
        leaves = {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(nnx.state(model))}
        return {key: np.array(leaves[path].get_value()) for key, path, _ in _expanded(self.weights, leaves)}


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def tiny(request, shared) -> Tiny:
    golden = shared / "golden/public"
    return Tiny(golden / "tiny" / request.param, golden / "sft" / f"tiny_{request.param}_data.npz")


@pytest.fixture
def stored(tiny, shared):
    name = "qwen2" if tiny.config.qkv_bias else "llama"

    def load(what: str):
        return np.load(shared / "golden/public/sft" / f"tiny_{name}_{what}.npz")

    return load


def nll_sums(model: nnx.Module, rows: Rows) -> np.ndarray:
    """Of each row, alone and without padding beside it: ``sum -log p`` of its trained tokens."""
    graphdef, numbers = nnx.split(model)
    copied = nnx.merge(graphdef, jax.tree.map(jax.numpy.copy, numbers))  # updates use the arrays of their model up
    state = init_state(copied, Optimizer(), adapters=False)
    sums, found, steps = zero_sums(state.params), [], {}
    for n in range(len(rows.tokens.length)):
        [batch] = plan_update(rows, np.array([n]), max_length=64, micro_batch=1)
        made = arrays(batch, rows)
        step = steps.setdefault(made.id_BxL.shape, make_step(state, Optimizer()))
        state, sums, metrics = update(step, state, sums, [made], 0.0)
        found.append(float(metrics.loss) * int(made.count))
    return np.array(found)


def train(
    tiny: Tiny,
    *,
    micro_batch=8,
    optimizer=None,
    schedule=None,
    lora=None,
    all_tokens=False,
    packing=False,
    remat=False,
    model=None,
):
    """Eight updates of eight rows, in order; the model, and what each update reported."""
    rows = tiny.rows if not all_tokens else tiny.rows._replace(trained=np.ones_like(tiny.rows.trained))
    model = tiny.model() if model is None else model
    optimizer = optimizer or Optimizer()
    schedule = schedule or make_schedule(PEAK, "linear", STEPS, warmup_ratio=0.03)
    state = init_state(model, optimizer, adapters=lora is not None)
    step = make_step(state, optimizer, remat=remat)
    sums, reported = zero_sums(state.params), []
    for n in range(STEPS):
        row = np.arange(BATCH) + BATCH * (n % 4)
        planned = plan_update(rows, row, max_length=64, micro_batch=micro_batch, packing=packing)
        batches = [arrays(batch, rows) for batch in planned]
        state, sums, metrics = update(step, state, sums, batches, schedule(n))
        tokens = sum(int(batch.count) for batch in batches)
        reported.append((schedule(n), float(metrics.loss), float(metrics.grad_norm), tokens))
    trained = nnx.merge(state.graphdef, state.params, state.frozen)
    return trained, np.array(reported)


def with_stored_adapters(tiny: Tiny, initial) -> nnx.Module:
    model = tiny.model()
    add_adapters(model, tiny.weights, LORA, rngs=nnx.Rngs(0))
    for n, layer in enumerate(model.layers):
        for name, module in (("q_proj", layer.attention.query), ("v_proj", layer.attention.value)):
            module.a[...] = jax.numpy.asarray(initial[f"layers.{n}.self_attn.{name}.lora_A"].T)
    return model


def close(found, wanted, relative: float) -> None:
    np.testing.assert_allclose(found, wanted, rtol=relative, atol=0)


@pytest.mark.parametrize("run", RUNS)
def test_a_recorded_run(tiny, stored, run):
    golden = stored(f"run_{run}")
    options = dict(RUNS[run])
    model = with_stored_adapters(tiny, stored("lora_init")) if run == "e" else tiny.model()
    initial = tiny.flat(model) if run != "e" else {}
    before = {} if run != "e" else adapters(model)
    trained, reported = train(tiny, model=model, **options)
    close(reported[:, 0], golden["lr"], 1e-7)
    close(reported[:, 1], golden["loss"], 2e-6)
    close(reported[:, 2], golden["grad_norm64"], 2e-5)
    np.testing.assert_array_equal(reported[:, 3], golden["trained_tokens"])
    if run == "e":
        after = adapters(trained)
        delta = [np.linalg.norm(after[name] - before[name]) for name in golden["names"].tolist()]
        close(delta, golden["delta_norm"], 2e-5)
        unmerged = nll_sums(trained, tiny.rows)
        base = tiny.flat(tiny.model())
        merge_adapters(trained)
        close(nll_sums(trained, tiny.rows), unmerged, 1e-5)
        merged = tiny.flat(trained)
        delta = [np.linalg.norm(merged[name] - base[name]) for name in golden["merged_names"].tolist()]
        close(delta, golden["merged_delta_norm"], 1e-4)  # the difference of two float32 kernels
    else:
        final = tiny.flat(trained)
        for name, wanted in zip(golden["names"].tolist(), golden["delta_norm"], strict=True):
            # A k_proj.bias has nearly no gradient: Adam turns its rounding into steps.
            close(np.linalg.norm(final[name] - initial[name]), wanted, 1e-2 if "k_proj.bias" in name else 2e-3)
    rows = tiny.rows if run != "f" else tiny.rows._replace(trained=np.ones_like(tiny.rows.trained))
    close(nll_sums(trained, rows), golden["row_nll_sum"], 1e-5)


def adapters(model: nnx.Module) -> dict[str, np.ndarray]:
    """peft's name of each adapter matrix -> its numbers."""
    found = {}
    for n, layer in enumerate(model.layers):
        for name, module in (("q_proj", layer.attention.query), ("v_proj", layer.attention.value)):
            assert isinstance(module, AdaptedLinear)
            for letter, value in (("A", module.a), ("B", module.b)):
                found[f"layers.{n}.self_attn.{name}.lora_{letter}"] = np.array(value[...])
    return found


@pytest.mark.parametrize(
    "options", [{"micro_batch": 1}, {"packing": True, "micro_batch": 2}, {"packing": True}, {"remat": True}]
)
def test_an_update_does_not_depend_on_its_batches(tiny, options):
    """Trained tokens are as good as all in one batch, or cut, or packed: 1e-6, float32's rounding."""
    _, wanted = train(tiny)
    _, found = train(tiny, **options)
    close(found[:, 1], wanted[:, 1], 1e-6)
    close(found[:, 2], wanted[:, 2], 1e-5)
    np.testing.assert_array_equal(found[:, 3], wanted[:, 3])


@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1), (2, 2, 2)], ids=str)
def test_an_update_does_not_depend_on_the_devices(tiny, shape):
    """Parameters, moments and gradients lie where the rules say; losses and parameters are one device's to 1e-6."""
    mesh = model_mesh(*shape)

    def run(mesh):
        state = init_state(tiny.model(mesh), Optimizer(), adapters=False, mesh=mesh)
        step, sums, losses = make_step(state, Optimizer()), zero_sums(state.params), []
        where = [leaf.sharding for leaf in jax.tree.leaves((state.params, state.moments, sums.gradients))]
        for n in range(3):
            planned = plan_update(tiny.rows, np.arange(8 * n, 8 * n + 8), max_length=64, micro_batch=8)
            batches = [arrays(batch, tiny.rows, multiple=8) for batch in planned]
            with nullcontext() if mesh is None else jax.set_mesh(mesh):
                placed = [place_batch(batch, mesh) for batch in batches]
                state, sums, metrics = update(step, state, sums, placed, 1e-4 * n)
            losses.append(float(metrics.loss))
        after = [leaf.sharding for leaf in jax.tree.leaves((state.params, state.moments, sums.gradients))]
        assert after == where
        return losses, state

    wanted, alone = run(None)
    found, shared = run(mesh)
    close(found, wanted, 1e-6)
    paths = zip(jax.tree_util.tree_leaves_with_path(alone.params), jax.tree.leaves(shared.params), strict=True)
    for (path, one), other in paths:
        # A step of Adam is 1e-4, its rounding 1e-7; the bias of keys has nearly no gradient, so its step is rounding.
        of_keys = "'key'" in str(path) and "'bias'" in str(path)
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 if of_keys else 1e-6, err_msg=str(path))
    if shape[1] > 1 or shape[2] > 1:
        parts = [leaf for leaf in jax.tree.leaves(shared.moments) if leaf.size >= 1024]  # matrices
        assert all(not leaf.sharding.is_fully_replicated for leaf in parts)
