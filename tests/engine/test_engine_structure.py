"""What the compiled engine is made of: the full pass finds its list by TopK, and the heap is one native function."""

import dataclasses
import importlib
import re
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

import mig_jax
from experiments.synthetic import synthetic_pool
from mig_jax.engine import Allowance, Remaining, Rules, greedy, make_problem, pool_mesh
from mig_jax.engine.kernels import KERNELS, FirstOrder
from mig_jax.engine.scalar import at, put
from mig_jax.objective import make_phi

pytestmark = pytest.mark.compiled  # the text of compiled programs, not behaviour

ROOT = Path(mig_jax.__file__).parent
ROWS, LABELS, SHORTLIST, PICKS_PER_CALL = 6_000, 300, 100, 90
SMALL = 64  # an array of no more numbers may be copied
PHIS = {"power": make_phi(), "exp": make_phi("exp"), "log": make_phi("log")}
LOOPS = {"parameter", "get-tuple-element", "tuple", "call", "while", "bitcast"}  # hand arrays on and make none


class Line(NamedTuple):
    """An instruction: the arrays that it makes, as (type, size), what it is, the computations it calls, and text."""

    makes: list[tuple[str, int]]
    what: str
    calls: list[str]
    text: str


class Stopped(Exception):
    pass


def call_of(where: str, name: str, problem, **more):
    """(the engine's jitted function, its arguments, its options) as ``greedy`` calls it the first time."""
    found = []
    module = importlib.import_module(f"mig_jax.engine.{where}")  # the package's own `greedy` is the function
    jitted = getattr(module, name)

    def spy(*args, **options):
        found[:] = args, options
        raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, spy)
        with pytest.raises(Stopped):
            greedy(
                problem,
                20,
                pool_mesh(jax.devices()[: problem.shards]),
                shortlist_size=SHORTLIST,
                picks_per_call=PICKS_PER_CALL,
                **more,
            )
    return jitted, *found


def allowance_of(points: int, quotas: int, cost: np.ndarray | None = None) -> Allowance:
    """Two quotas a point, a budget where there is a cost."""
    idx = np.random.default_rng(0).integers(0, quotas, 2 * points)
    budget = None if cost is None else np.float64(1e4)
    rules = Rules(np.zeros(points, bool), 2 * np.arange(points + 1), idx, cost, budget, np.bool_(False))
    return Allowance(rules, Remaining(np.full(quotas, 9), np.zeros(quotas, np.int64), np.float64(0)))


def text_of(where: str, name: str, problem, **more) -> str:
    """The compiled text."""
    jitted, args, options = call_of(where, name, problem, **more)
    with jax.enable_x64(where == "greedy"):
        return jitted.lower(*args, **options).compile().as_text()


def computations(text: str) -> tuple[str, dict[str, list[Line]]]:
    """(the entry's name, the lines of every computation)."""
    entry, lines, found = "", [], {}
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%([\w.\-]+) \(.*\{$", line):
            lines = found.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif made := re.match(r"\s+(?:ROOT )?%[\w.\-]+ = (\(.*?\)|\S+) ([\w\-]+)\(", line):
            arrays = [(t, int(np.prod([int(n) for n in s.split(",") if n]))) for t, s in ARRAY.findall(made[1])]
            lines.append(Line(arrays, made[2], CALLED.findall(line), line.strip()))
    return entry, found


ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
CALLED = re.compile(r"\b(?:calls|to_apply|body|condition)=%([\w.\-]+)")


def reached_from(start: list[str], found: dict[str, list[Line]]) -> set[str]:
    """Those computations and all that they call."""
    seen, left = set(), list(start)
    while left:
        name = left.pop()
        if name not in seen:
            seen.add(name)
            left += [called for line in found[name] for called in line.calls]
    return seen


def whole_arrays(text: str) -> list[str]:
    """What a loop's turn does to a whole array: anything but handing it on or writing one number of it."""
    _, found = computations(text)
    fused = {called for lines in found.values() for line in lines if line.what == "fusion" for called in line.calls}
    loops = [called for lines in found.values() for line in lines if line.what == "while" for called in line.calls]
    assert loops
    bad = []
    for name in reached_from(loops, found) - fused:
        for line in found[name]:
            what = found[line.calls[0]][-1].what if line.what == "fusion" else line.what  # the last line is the root
            if any(size > SMALL for _, size in line.makes) and what not in {*LOOPS, "dynamic-update-slice"}:
                bad.append(line.text[:200])
    return bad


def problem_of(kind: str, shards: int, phi="power", cost=None):
    encoded, graph = synthetic_pool(ROWS, LABELS)
    problem = make_problem(encoded, graph.propagation(), PHIS[phi], kind, shards, cost)
    assert problem.groups.num_groups > 50 * SHORTLIST
    assert len(problem.buckets) > 1
    return problem


@pytest.mark.parametrize("shards", [1, 8])
@pytest.mark.parametrize("kind", KERNELS)
def test_the_full_pass_finds_its_list_by_top_k(kind, shards):
    """Sorting all gains takes nine times the time."""
    text = text_of("pool_in_memory", "full_pass", problem_of(kind, shards))
    assert re.search(r'custom_call_target="TopK"|topk\(', text), "no TopK"
    _, found = computations(text)
    lines = [line for computation in found.values() for line in computation]
    assert not [line.text for line in lines if line.what == "sort"]
    told = {what for what in COLLECTIVES if any(line.what.startswith(what) for line in lines)}
    assert told == ({"all-gather"} if shards > 1 else set()), "a sum over devices would depend on their number"


COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "collective-", "all-to-all")


@pytest.mark.parametrize("limits", ["", "quotas", "quotas and costs"])
@pytest.mark.parametrize("phi", PHIS)
@pytest.mark.parametrize("kind", KERNELS)
def test_the_heap_is_one_native_function_that_copies_no_array(kind, phi, limits):
    cost = np.random.default_rng(0).uniform(1, 9, ROWS) if "costs" in limits else None
    problem = problem_of(kind, 1, phi, cost)
    text = text_of("greedy", "pick", problem, allowance=allowance_of(ROWS, 3 * SMALL, cost) if limits else None)
    entry, found = computations(text)
    native = [line for line in found[entry] if line.what == "call"]
    assert len(native) == 1
    assert 'xla_cpu_small_call="true"' in native[0].text
    assert not [line.text for line in found[entry] if line.what in ("while", "conditional")]
    assert [line.what for line in found[native[0].calls[0]]].count("while") == 1
    assert not whole_arrays(text)
    lines = [line for computation in found.values() for line in computation]
    assert not [line.text for line in lines if line.what in ("sort", "conditional", "custom-call", "scatter")]
    assert not [line.text for line in lines if line.what.startswith(COLLECTIVES)]
    of_queues = [line for line in lines if problem.num_points in [size for _, size in line.makes]]
    assert of_queues
    assert not [line.text for line in of_queues if line.what not in LOOPS], "the queues are as long as the pool"


@pytest.mark.parametrize("kind", KERNELS)
def test_a_warm_start_is_one_native_function_that_copies_no_array(kind, monkeypatch):
    seen = []
    module = importlib.import_module("mig_jax.engine.warm_start")

    def spy(*args, **options):
        seen[:] = args, options
        raise Stopped

    jitted = module.absorb_all
    monkeypatch.setattr(module, "absorb_all", spy)
    with pytest.raises(Stopped):
        module.warm_start(problem_of(kind, 1), np.arange(500), pool_mesh(jax.devices()[:1]))
    with jax.enable_x64(True):
        text = jitted.lower(*seen[0], **seen[1]).compile().as_text()
    entry, found = computations(text)
    assert [line.what for line in found[entry]].count("call") == 1
    assert not whole_arrays(text)


def test_the_labels_gains_are_one_native_function():
    text = text_of("greedy", "label_gains", problem_of("first_order", 1))
    entry, found = computations(text)
    assert [line.what for line in found[entry]].count("call") == 1
    assert 'xla_cpu_small_call="true"' in text
    assert not [line.text for line in found[entry] if line.what == "while"]
    assert not whole_arrays(text)


def read_then_used(labels, phi, state, rows, start, stop, score):
    """The slope before the write is used after it."""

    def tag(t, state):
        label = at(rows.idx, t)
        before = at(state.slope, label)
        slope = put(state.slope, label, phi.slope(at(state.x, label)))
        after = at(slope, at(rows.idx, stop))
        return FirstOrder(put(state.x, label, before + after), slope)

    return jax.lax.fori_loop(start, stop, tag, state)


def a_branch(labels, phi, state, rows, start, stop, score):
    """A cond around the arrays."""

    def write(state):
        label = at(rows.idx, start)
        return FirstOrder(put(state.x, label, at(state.x, label) + score), state.slope)

    return jax.lax.cond(stop > start, write, lambda state: state, state)


def all_labels(labels, phi, state, rows, start, stop, score):
    """Every slope anew."""
    return FirstOrder(state.x, phi.slope(state.x) + score)


@pytest.mark.parametrize("absorb", [read_then_used, a_branch, all_labels])
def test_what_the_rules_forbid_is_seen(absorb, monkeypatch):
    monkeypatch.setitem(KERNELS, absorb.__name__, KERNELS["first_order"]._replace(absorb=absorb))
    problem = problem_of("first_order", 1)
    problem = dataclasses.replace(problem, objective=problem.objective._replace(kind=absorb.__name__))
    text = text_of("greedy", "pick", problem)
    assert whole_arrays(text)
