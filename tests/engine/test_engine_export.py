"""Every compiled entry of the package lowers for CUDA and TPU, on a machine that has neither, through jax.export.

Lowering is what fails first on another backend: an operation without a rule there, a call that only this one answers.
It says nothing of speed or rounding. The entries are one list; a search of the package's source shows what it lacks.
"""

import ast
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from engine_cases import SHAPES, fill
from flax import nnx

import mig_jax
from mig_jax.engine import make_problem, pool_mesh
from mig_jax.engine.full_pass import BLOCK, full_pass
from mig_jax.engine.greedy import _alive, _place
from mig_jax.engine.inner_pass import inner_pass
from mig_jax.engine.kernels import KERNELS
from mig_jax.gain import make_phi
from mig_jax.graph.cosine import _tile
from mig_jax.models.embed import _embed_batch
from mig_jax.models.families import ENCODERS

ROOT = Path(mig_jax.__file__).parent
PLATFORMS = ("cuda", "tpu")
SHARDS = 8
C1, C2, SEGMENT = 64, 16, 8
JITS = {"jit", "pjit", "pmap"}  # jax.jit, nnx.jit and what else compiles


class Entry(NamedTuple):
    """``where`` names it as ``jit_uses`` does; ``make`` gives the jitted function, its arguments and its options."""

    where: str
    make: Callable[[], tuple[Any, tuple, dict]]


PHIS = {"power": make_phi(), "exp": make_phi("exp"), "log": make_phi("log")}


@cache
def parts(kind: str, shards: int, blocks: bool = False):
    """A problem of two buckets or more, its mesh and its first state; ``blocks``: rows for more than one block."""
    shape = SHAPES["web"]
    if blocks:
        shape = shape._replace(tags=(1, 2, 9, 3) * (BLOCK // 2), zero=())
    drawn = fill(shape, 0, "real", make_phi(), 1.0, same_labels=True)
    problem = make_problem(drawn.encoded, drawn.graph.propagation(), drawn.phi, kind, shards)
    assert len(problem.buckets) > 1
    mesh = pool_mesh(jax.devices()[:shards])
    state = jax.eval_shape(lambda labels: KERNELS[kind].init(labels, problem.phi, problem.num_labels), problem.labels)
    return problem, mesh, jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), state)


def of_init(kind: str):
    problem, _, _ = parts(kind, 1)
    return jax.jit(KERNELS[kind].init, static_argnums=2), (problem.labels, problem.phi, problem.num_labels), {}


def of_full_pass(kind: str, shards: int = 1, blocks: bool = False, phi: str = "power"):
    problem, mesh, state = parts(kind, shards, blocks)
    args = (PHIS[phi], state, *_place(problem, mesh), _alive(problem, mesh, []), np.full(C1, -1, np.int32))
    return full_pass, args, {"kind": kind, "c1": C1, "mesh": mesh}


def of_inner_pass(kind: str, phi: str):
    problem, _, state = parts(kind, 1)
    _, args, options = of_full_pass(kind, phi=phi)
    _, found = jax.eval_shape(lambda *a: full_pass(*a, **options), *args)
    options = {"kind": kind, "c2": C2, "size": SEGMENT}
    return inner_pass, (problem.labels, PHIS[phi], state, found, jnp.int32(5)), options


def of_embed_batch(pooling: str, normalize: bool):
    """A random BERT of two layers, 24 wide, 3 heads; B = 2 rows of L = 32 tokens."""
    config = {
        "model_type": "bert", "vocab_size": 30, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
        "intermediate_size": 40, "max_position_embeddings": 64, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
    }  # fmt: skip
    family = ENCODERS["bert"]
    graphdef, state = nnx.split(family.build(family.read_config(config, "config.json")))
    ids = np.ones((2, 32), np.int32)
    return _embed_batch, (graphdef, state, ids, ids), {"slots": 3, "pooling": pooling, "normalize": normalize}


def of_tile():
    return _tile, (jnp.zeros((64, 24)), 0, 32, 32), {}


ENTRIES = {
    "tile": Entry("graph/cosine.py:_tile", of_tile),
    "embed mean": Entry("models/embed.py:_embed_batch", lambda: of_embed_batch("mean", True)),
    "embed cls": Entry("models/embed.py:_embed_batch", lambda: of_embed_batch("cls", False)),
    "exact full pass in blocks": Entry("engine/full_pass.py:full_pass", lambda: of_full_pass("exact", blocks=True)),
}
for _kind in KERNELS:
    ENTRIES[f"{_kind} init"] = Entry("engine/greedy.py:kernel.init", lambda k=_kind: of_init(k))
    _where = "engine/full_pass.py:full_pass"
    ENTRIES[f"{_kind} full pass, 8 devices"] = Entry(_where, lambda k=_kind: of_full_pass(k, SHARDS))
    for _phi in PHIS:
        ENTRIES[f"{_kind} full pass, {_phi}"] = Entry(_where, lambda k=_kind, p=_phi: of_full_pass(k, phi=p))
        _inner = "engine/inner_pass.py:inner_pass"
        ENTRIES[f"{_kind} inner pass, {_phi}"] = Entry(_inner, lambda k=_kind, p=_phi: of_inner_pass(k, p))


@pytest.mark.parametrize("name", ENTRIES)
def test_it_lowers_for_cuda_and_tpu(name: str):
    function, args, options = ENTRIES[name].make()
    exported = jax.export.export(function, platforms=PLATFORMS)(*args, **options)
    assert exported.platforms == PLATFORMS
    assert exported.nr_devices == (SHARDS if "8 devices" in name else 1)
    text = exported.mlir_module()
    assert "stablehlo" in text
    assert ("stablehlo.all_gather" in text) == ("8 devices" in name)
    if "pass" in name:
        assert "chlo.top_k" in text


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
    assert found == {entry.where for entry in ENTRIES.values()}


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
