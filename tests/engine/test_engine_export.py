"""Every compiled entry of the package lowers for CUDA and TPU, on a machine that has neither, through jax.export.

Lowering is what fails first on another backend: an operation without a rule there, a call that only this one answers.
It says nothing of speed or rounding. The entries are one list; a search of the package's source shows what it lacks.
"""

import ast
import importlib
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from engine_cases import SHAPES, fill
from flax import nnx
from test_engine_structure import allowance_of, call_of

import mig_jax
from mig_jax.commands.annotate.nearest_labels import _candidates
from mig_jax.encode import Encoded
from mig_jax.engine import Problem, make_problem, pool_mesh
from mig_jax.engine.kernels import KERNELS, RowLabels, absorb_all
from mig_jax.engine.pool_on_disk import _block_top
from mig_jax.labels.cosine import _tile
from mig_jax.labels.label_graph import Propagation
from mig_jax.models.checkpoints.architectures import ARCHITECTURES
from mig_jax.models.inference.car_model import _score
from mig_jax.models.inference.decoding import Draw, Rule, decode, prefill
from mig_jax.models.inference.embed import _embed_batch
from mig_jax.models.inference.logprobs import _logprobs
from mig_jax.models.inference.next_token import _next_logits
from mig_jax.models.networks.car_scorer import CarConfig, CarScorer
from mig_jax.models.networks.families import FAMILIES
from mig_jax.models.networks.layers import Build
from mig_jax.objective import make_phi
from mig_jax.samplers import SamplingTask, find_sampler
from mig_jax.samplers.configured import sampler_options
from mig_jax.training.optimizer import Optimizer
from mig_jax.training.packing import Arrays
from mig_jax.training.step import init_state, make_step, zero_sums
from mig_jax.vectors.vectors import Vectors

ROOT = Path(mig_jax.__file__).parent
PLATFORMS = ("cuda", "tpu")
SHARDS = 8
JITS = {"jit", "pjit", "pmap"}  # jax.jit, nnx.jit and what else compiles
# One native function: only a CPU's backend knows such, and only it is ever given one. And a closure that calls
# initialisers and nothing else.
APART = {"engine/scalar.py:call", "models/networks/sharding.py:random_state", "models/inference/flops.py:_square"}


class Entry(NamedTuple):
    """``where`` names it as ``jit_uses`` does; ``make`` gives the jitted function, its arguments and its options."""

    where: str
    make: Callable[[], tuple[Any, tuple, dict]]


PHIS = {"power": make_phi(), "exp": make_phi("exp"), "log": make_phi("log")}


@cache
def problem_of(kind: str, shards: int, phi: str, repeats: int = 100, costs: bool = False) -> Problem:
    """Of two buckets or more, with more groups than a list holds. ``costs``: by the gain per cost."""
    shape = SHAPES["web"]._replace(tags=(1, 2, 9, 3) * repeats, zero=())
    drawn = fill(shape, 0, "real", PHIS[phi], 1.0, same_labels=True)
    cost = np.full(len(drawn.encoded), 2.0) if costs else None
    problem = make_problem(drawn.encoded, drawn.graph.propagation(), drawn.phi, kind, shards, cost)
    assert len(problem.buckets) > 1
    return problem


def of_pass(name: str, kind: str, shards: int = 1, phi: str = "power"):
    return call_of("pool_in_memory", name, problem_of(kind, shards, phi))


def of_first_bounds_in_blocks():
    """Traced here, where a block is small; a shape of its own, for the trace is kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mig_jax.engine.full_pass.BLOCK", 30)
        jitted, args, options = call_of("pool_in_memory", "exact_bounds", problem_of("exact", 1, "power", repeats=70))
        jitted.trace(*args, **options)
    return jitted, args, options


def of_heap(name: str, kind: str, phi: str = "power", native: bool = False):
    """As where ``engine.heap_device`` is device."""
    jitted, args, options = call_of("greedy", name, problem_of(kind, 1, phi))
    return jitted, args, options | {"native": native}


def of_limited_heap(kind: str, by_cost: bool):
    """With quotas and a budget; by the gain or by the gain per cost."""
    problem = problem_of(kind, 1, "power", costs=by_cost)
    points = int(problem.groups.point.max()) + 1
    jitted, args, options = call_of("greedy", "pick", problem, allowance=allowance_of(points, 5, np.full(points, 2.0)))
    return jitted, args, options | {"native": False}


def of_warm_start(kind: str, native: bool = False):
    problem, size = problem_of(kind, 1, "power"), 8
    groups, kernel = problem.groups, KERNELS[kind]
    stop = int(groups.ptr[size])
    part = None if groups.unit_mass is None else groups.unit_mass[:stop]
    rows = RowLabels(groups.ptr[: size + 1].astype(np.int32), groups.idx[:stop], part)
    args = problem.objective.p, problem.objective.phi, kernel.start(problem.objective), rows, np.ones(size), np.int32(5)
    return absorb_all, args, {"kind": kind, "native": native}


def of_block_top():
    labels = np.zeros((4, 256), np.uint16)
    return _block_top, (np.zeros(31, np.float32), labels, np.zeros(256, np.float32)), {"count": 64}


def of_embed_batch(pooling: str, normalize: bool):
    """A random BERT of two layers, 24 wide, 3 heads; B = 2 rows of L = 32 tokens."""
    config = {
        "model_type": "bert", "vocab_size": 30, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
        "intermediate_size": 40, "max_position_embeddings": 64, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
    }  # fmt: skip
    family = FAMILIES["bert"]
    graphdef, state = nnx.split(family.build(ARCHITECTURES["bert"].read_config(config, "config.json"), Build(), False))
    ids = np.ones((2, 32), np.int32)
    return _embed_batch, (graphdef, state, ids, ids), {"slots": 3, "pooling": pooling, "normalize": normalize}


@cache
def tiny_decoder():
    """A random decoder of two layers, 16 wide, 4 heads on 2 key heads, a window in its second layer."""
    raw = {
        "model_type": "mistral", "vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 24, "max_position_embeddings": 64, "sliding_window": 8,
        "layer_types": ["full_attention", "sliding_attention"],
    }  # fmt: skip
    family = FAMILIES["mistral"]
    return nnx.split(family.build(ARCHITECTURES["mistral"].read_config(raw, "config.json"), Build(), True))


def of_logprobs():
    ids, places = np.ones((2, 32), np.int32), np.zeros(64, np.int32)
    return _logprobs, (*tiny_decoder(), ids, ids, places, places, np.int32(40)), {"chunk_size": 16, "exact": True}


def of_next_logits():
    ids, places, words = np.ones((2, 32), np.int32), np.zeros(8, np.int32), np.array([9, 3], np.int32)
    return _next_logits, (*tiny_decoder(), ids, ids, places, words), {"exact": True}


def of_car_score():
    """A random XLM-R of two layers, 24 wide, 3 heads, and a head of one hidden layer; B = 2 rows of L = 32 tokens."""
    config = {
        "model_type": "xlm-roberta", "vocab_size": 30, "hidden_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 3, "intermediate_size": 40, "max_position_embeddings": 66, "type_vocab_size": 1,
        "layer_norm_eps": 1e-5, "hidden_act": "gelu", "pad_token_id": 1, "hidden_sizes": [8],
    }  # fmt: skip
    scorer, ids = CarScorer(CarConfig.from_json(config), rngs=nnx.Rngs(0)), np.ones((2, 32), np.int32)
    return _score, (*nnx.split(scorer), ids, ids), {"exact": True}


def of_prefill(rule: Rule):
    ids = np.ones((2, 32), np.int32)
    draw = Draw(jax.random.key(0), np.zeros(2, np.int32), np.float32(0.7), np.float32(0.9))
    options = {"rule": rule, "cache_length": 64, "exact": True}
    return prefill, (*tiny_decoder(), ids, ids, draw, np.array([2], np.int32)), options


def of_decode(rule: Rule):
    run, args, options = of_prefill(rule)
    live, _, _ = run(*args, **options)
    ended, draw, end = np.zeros(2, bool), args[4], args[5]
    more = {"rule": rule, "steps": 4, "exact": True}
    return decode, (*tiny_decoder(), live, ended, np.int32(20), draw, end), more


def of_training(name: str):
    """An update of all parameters of the small decoder: a batch of two sequences of 32 tokens."""
    state = init_state(nnx.merge(*tiny_decoder()), Optimizer(), adapters=False)
    step, sums = make_step(state, Optimizer()), zero_sums(state.params)
    ids, positions = np.ones((2, 32), np.int32), np.zeros(64, np.int32)
    if name == "add_batch":
        return (
            step.add_batch,
            (state.params, state.frozen, sums, Arrays(ids, ids, positions, positions, np.int32(9))),
            {},
        )
    return step.apply, (state.params, state.moments, sums, np.int32(9), np.float32(1e-3)), {}


def of_vectors(sampler: str, module: str, name: str):
    """The function's arguments as a sampler calls it the first time, on 40 points of 16 kinds."""
    found: list[Any] = []
    place = importlib.import_module(f"mig_jax.vectors.{module}")
    jitted = getattr(place, name)

    def spy(*args, **options):
        found[:] = found or [args, options]
        return jitted(*args, **options)

    vectors = np.eye(16, dtype=np.float32)[np.arange(40) % 16]  # cosines of 0: at DEITA's threshold, so decided again
    encoded = Encoded(np.arange(40), np.arange(41), np.zeros(40, np.int32), np.ones(40), ("all",), {})
    graph = Propagation(np.array([0, 1]), np.zeros(1, np.int32), np.ones(1))
    settings = sampler_options(sampler, {"threshold": 0.0} if sampler == "deita" else {})
    ranking = np.ones(40)
    work = SamplingTask(
        encoded,
        graph,
        PHIS["power"],
        settings,
        ranking=ranking,
        seed=len(name),  # CaR keeps the clusters of a task
        vectors=Vectors(vectors, encoded.row),
        mesh=pool_mesh(jax.devices()[:1]),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, name, spy)
        find_sampler(sampler).sample(work, 14, **({"block": 8} if sampler == "deita" else {}))
    args, options = found
    return jitted, args, options


def of_tile():
    return _tile, (jnp.zeros((64, 24)), 0, 32, 32), {}


def of_candidates():
    return _candidates, (np.zeros((16, 24), np.float32), np.zeros((40, 24), np.float32)), {"keep": 13}


ENTRIES = {
    "tile": Entry("labels/cosine.py:_tile", of_tile),
    "top of the labels": Entry("commands/annotate/nearest_labels.py:_candidates", of_candidates),
    "embed mean": Entry("models/inference/embed.py:_embed_batch", lambda: of_embed_batch("mean", True)),
    "embed cls": Entry("models/inference/embed.py:_embed_batch", lambda: of_embed_batch("cls", False)),
    "log-probabilities in chunks": Entry("models/inference/logprobs.py:_logprobs", of_logprobs),
    "logits of a few words": Entry("models/inference/next_token.py:_next_logits", of_next_logits),
    "CaR's score": Entry("models/inference/car_model.py:_score", of_car_score),
    "prefill": Entry("models/inference/decoding.py:prefill", lambda: of_prefill(Rule(True, None, False))),
    "prefill and draw": Entry("models/inference/decoding.py:prefill", lambda: of_prefill(Rule(False, 5, True))),
    "decode in a loop": Entry("models/inference/decoding.py:decode", lambda: of_decode(Rule(True, None, False))),
    "decode in a loop and draw": Entry("models/inference/decoding.py:decode", lambda: of_decode(Rule(False, 5, True))),
    "a training batch, logits in chunks": Entry("training/step.py:add_batch", lambda: of_training("add_batch")),
    "a training update": Entry("training/step.py:apply", lambda: of_training("apply")),
    "label gains": Entry("engine/kernels.py:label_gains", lambda: of_heap("label_gains", "first_order")),
    "bounds in blocks": Entry("engine/full_pass.py:exact_bounds", of_first_bounds_in_blocks),
    "bounds, 8 devices": Entry("engine/full_pass.py:exact_bounds", lambda: of_pass("exact_bounds", "exact", SHARDS)),
    "top of a block": Entry("engine/pool_on_disk.py:_block_top", of_block_top),
}
for _kind in KERNELS:
    ENTRIES[f"{_kind} warm start"] = Entry("engine/kernels.py:absorb_all", lambda k=_kind: of_warm_start(k))
    for _name, _by_cost in (("quotas and a budget", False), ("gain per cost", True)):
        _limited = partial(of_limited_heap, _kind, _by_cost)
        ENTRIES[f"{_kind} pick, {_name}"] = Entry("engine/lazy_heap.py:pick", _limited)
    _full = "engine/full_pass.py:full_pass"
    ENTRIES[f"{_kind} full pass"] = Entry(_full, lambda k=_kind: of_pass("full_pass", k))
    ENTRIES[f"{_kind} full pass, 8 devices"] = Entry(_full, lambda k=_kind: of_pass("full_pass", k, SHARDS))
    for _phi in PHIS:
        _pick = "engine/lazy_heap.py:pick"
        ENTRIES[f"{_kind} pick, {_phi}"] = Entry(_pick, lambda k=_kind, p=_phi: of_heap("pick", k, p))
for _sampler, _module, _functions in (
    ("deita", "novelty", "_nearest _among _with _put"),
    ("qdit", "facility_location", "_add_and_gain _write"),
    ("car", "kmeans", "_nearest _try_seeds _add_seed"),
    ("car", "pca", "_each"),
):
    for _function in _functions.split():
        _entry = Entry(f"vectors/{_module}.py:{_function}", partial(of_vectors, _sampler, _module, _function))
        ENTRIES[f"vectors: {'coverage' if _sampler == 'qdit' else _module} {_function}"] = _entry
for _phi in PHIS:
    _bounds = "engine/full_pass.py:exact_bounds"
    ENTRIES[f"bounds, {_phi}"] = Entry(_bounds, lambda p=_phi: of_pass("exact_bounds", "exact", phi=p))


@pytest.mark.compiled
@pytest.mark.parametrize("name", ENTRIES)
def test_it_lowers_for_cuda_and_tpu(name: str):
    function, args, options = ENTRIES[name].make()
    in_float64 = "native" in options
    with jax.enable_x64(in_float64 or "coverage" in name):
        exported = jax.export.export(function, platforms=PLATFORMS)(*args, **options)
    assert exported.platforms == PLATFORMS
    assert exported.nr_devices == (SHARDS if "8 devices" in name else 1)
    text = exported.mlir_module()
    assert "stablehlo" in text
    if name.startswith("vectors"):
        return
    assert ("stablehlo.all_gather" in text) == ("full pass, 8 devices" in name)
    assert ("chlo.top_k" in text) == ("full pass" in name or "top of" in name or "draw" in name)
    assert ("stablehlo.while" in text) == (in_float64 or " in " in name)
    assert ("xf64>" in text) == in_float64
    assert "xla_cpu_small_call" not in text


@pytest.mark.compiled
@pytest.mark.parametrize("kind", KERNELS)
def test_the_native_form_lowers_for_a_cpu(kind):
    function, args, options = of_heap("pick", kind, native=True)
    with jax.enable_x64(True):
        text = jax.export.export(function, platforms=["cpu"])(*args, **options).mlir_module()
    assert 'xla_cpu_small_call = "true"' in text


def jit_uses(source: str) -> Iterator[str]:
    """What is compiled where: the function's name under a decorator, the first argument of a call, else the line."""
    tree = ast.parse(source)
    parent = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("jax", "flax"):
            for alias in node.names:
                if alias.name in JITS and alias.asname not in (None, alias.name):
                    yield f"{alias.name} renamed at line {node.lineno}"
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        if name in JITS:
            yield _compiled(node, parent)


def _compiled(node: ast.AST, parent: dict[ast.AST, ast.AST]) -> str:
    above = parent[node]
    if isinstance(above, ast.Call) and above.func is not node and ast.unparse(above.func).endswith("partial"):
        node, above = above, parent[above]  # partial(jax.jit, ...) stands for jax.jit
    if isinstance(above, ast.Call) and above.func is node:
        if above.args:
            return ast.unparse(above.args[0])
        node, above = above, parent[above]  # jax.jit(static_argnames=...) as a decorator
    if isinstance(above, ast.FunctionDef) and node in above.decorator_list:
        return above.name
    return f"line {getattr(node, 'lineno', '?')}"


def test_the_list_holds_every_entry_of_the_package():
    found = {
        f"{path.relative_to(ROOT).as_posix()}:{use}"
        for path in ROOT.rglob("*.py")
        for use in jit_uses(path.read_text(encoding="utf-8"))
    }
    assert found == {entry.where for entry in ENTRIES.values()} | APART


def test_the_search_finds_every_form_of_jit():
    source = """
from jax import jit
from jax import jit as fast
@jax.jit
def a(): pass
@partial(jax.jit, static_argnames="n")
def b(): pass
@functools.partial(nnx.jit)
def c(): pass
@jit
def d(): pass
@jax.jit(static_argnums=0)
def e(): pass
f = jax.jit(lambda x: x)
g = jit(self.step, donate_argnums=0)
h = partial(jax.jit, static_argnums=0)(i)
k = jax.jit
"""
    found = sorted(jit_uses(source))
    assert found == sorted(
        ["jit renamed at line 3", "a", "b", "c", "d", "e", "lambda x: x", "self.step", "i", "line 17"]
    )
