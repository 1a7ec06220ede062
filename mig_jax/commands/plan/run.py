"""``mig-jax plan``: the sizes of a pool, the memory that follows from them, and seconds by the machine's constants."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from mig_jax.commands.plan.config import PlanKeys
from mig_jax.commands.plan.memory import Memory, cosine_bytes, device_limit, host_limit, memory_of, resident
from mig_jax.commands.plan.rates import Rates, constants, machine, measure_cosines, measure_embedding, measure_run
from mig_jax.commands.plan.sizes import Sizes, sizes_of
from mig_jax.commands.select.config import SelectConfig
from mig_jax.commands.select.inputs import mesh_of
from mig_jax.core.errors import UserError
from mig_jax.core.progress import Progress, silent
from mig_jax.core.timing import Stopwatch
from mig_jax.labels import LabelGraph
from mig_jax.samplers import find_sampler

SAFE = 0.9  # of the memory: the system and the file cache need some


@dataclass(frozen=True)
class Stage:
    """Seconds without and with a cache, bytes of the host at the peak, and what the seconds follow from."""

    name: str
    cold: float
    cached: float
    peak: float
    how: str


@dataclass(frozen=True)
class Plan:
    """``fits``: None where the memory of the machine is unknown; ``verdict`` states it in a sentence."""

    sizes: Sizes
    budgets: tuple[int, ...]
    settings: dict[str, Any]
    stages: list[Stage]
    memory: Memory
    limit: tuple[int, str]
    device_limit: int
    fits: bool | None
    verdict: str
    notes: list[str]
    machine: dict[str, Any]
    rates: Rates

    @property
    def peak(self) -> float:
        """Bytes of the host at most."""
        return max(stage.peak for stage in self.stages)

    @property
    def seconds(self) -> tuple[float, float]:
        """Of all stages, without and with a cache."""
        return sum(stage.cold for stage in self.stages), sum(stage.cached for stage in self.stages)


def run_plan(config: SelectConfig, keys: PlanKeys, *, progress: Progress = silent) -> Plan:
    """Plan a selection. Nothing is written but the machine's constants, in the cache.

    Raises:
      UserError: a mistake that a run would stop at too, as far as the first rows of the pool show it.
    """
    started = Stopwatch().seconds.get("start", 0.0)
    if config.mesh.coordinator is not None or config.mesh.processes is not None or config.mesh.process is not None:
        raise UserError("a plan is made by one process; remove this key and its like", key="mesh.coordinator")
    base = float(resident())
    sampler, mesh = find_sampler(config.sampler.name), mesh_of(config.mesh)
    asked = () if sampler.takes_all else config.budgets
    graph = None if config.graph.path is None else LabelGraph.load(config.graph.path)
    progress("plan: pool", 0, None)
    sizes = sizes_of(config, keys, None if graph is None else len(graph.labels))
    budgets = asked or (sizes.points,)
    if budgets[-1] > sizes.points:
        raise UserError(f"the plan is of {sizes.points:,} usable rows", key="n", value=budgets[-1])

    degree = config.graph.degree if graph is None else float(graph.facts()["mean_degree"])
    degree = float(np.clip(degree, 0, max(sizes.labels - 1, 0)))
    gain = getattr(config.sampler, "gain", "first_order")
    cache = Path(config.cache).expanduser() if config.cache else None
    progress("plan: constants of this machine", 0, None)
    network = _label_graph(config, graph, sizes, cache, keys.measure)  # first: its memory is measured
    rates = constants(cache, "run", [gain, mesh.size], lambda: measure_run(config, gain), keys.measure)
    shortlist = config.engine.shortlist
    memory = memory_of(sizes, gain, degree, budgets[-1], shortlist, mesh.size, base + rates["programs"], network.bytes)
    stages = _stages(sizes, budgets, started, rates, memory, network)

    notes = [f"sizes: {sizes.source}"]
    if config.sampler.name != "mig":
        notes.append(
            f"sampler={config.sampler.name}: the engine's lines are those of sampler=mig; see experiments/README.md"
        )
    if {"vectors", "rows"} & set(sampler.needs):
        notes.append("embedding the rows, or compressing them, is not in this plan")
    if config.limits.tokens is not None:
        notes.append("limits.tokens: the plan is of n rows, or of all")
    limit, on_device = host_limit(), device_limit()
    fits, verdict = verdict_of(stages, limit, memory.device, on_device, gain, mesh.size)
    settings = {"sampler": config.sampler.name, "gain": gain, "degree": degree, "devices": mesh.size}
    return Plan(
        sizes, budgets, settings, stages, memory, limit, on_device, fits, verdict, notes, machine(), rates
    )  # fmt: skip


class Network(NamedTuple):
    """The label graph where it is neither given nor cached: seconds, bytes beside the pool, and how."""

    seconds: float
    bytes: float
    how: str


def _label_graph(
    config: SelectConfig, graph: LabelGraph | None, sizes: Sizes, cache: Path | None, again: bool
) -> Network:
    if graph is not None:
        return Network(0.0, 0.0, "graph.path")
    cosines = constants(cache, "cosines", [], measure_cosines, again)["pair"] * sizes.labels**2 / 2
    embedder = msgspec.to_builtins(config.embedder)
    try:
        embed = constants(cache, "embedder", embedder, lambda: measure_embedding(config), again)
    except UserError as error:
        return Network(cosines, cosine_bytes(sizes.labels), f"cosines alone, no embedder: {error}")
    seconds = embed["load"] + embed["label"] * sizes.labels + cosines
    return Network(seconds, embed["bytes"] + cosine_bytes(sizes.labels), f"{sizes.labels:,} labels")


def _stages(
    sizes: Sizes, budgets: tuple[int, ...], started: float, rates: Rates, memory: Memory, network: Network
) -> list[Stage]:
    """Seconds are a constant times a size."""
    picks, peak = budgets[-1], memory.stages
    read, encode = rates["read"] * sizes.text, rates["encode"] * sizes.rows
    select = rates["row"] * sizes.points + rates["pick"] * picks
    judge = rates["judge"] * sizes.points * len(budgets)
    write = rates["write"] + rates["write pick"] * picks
    start = started + rates["fixed"]
    return [
        Stage("start", start, start, memory.parts["process"], "imports, devices, the fixed part of every stage"),
        Stage("read pool", read, rates["cached"] * sizes.text, peak["parse"], f"{sizes.text / 1e6:,.0f} MB of text"),
        Stage("encode", encode, encode, peak["encode"], f"{1e6 * rates['encode']:.2f} us a row"),
        Stage("label graph", network.seconds, 0.0, peak["graph"], network.how),
        Stage("compile", rates["compile"], 0.0, peak["engine"], "the engine's programs"),
        Stage(
            "select", select, select, max(peak["layout"], peak["engine"]),
            f"{1e6 * rates['row']:.2f} us a row, {1e6 * rates['pick']:.0f} us a pick",
        ),
        Stage("judge", judge, judge, peak["judge"], f"{1e6 * rates['judge']:.2f} us a row and budget"),
        Stage("write", write, write, peak["write"], f"{1e6 * rates['write pick']:.0f} us a pick"),
    ]  # fmt: skip


def verdict_of(
    stages: list[Stage], limit: tuple[int, str], device: float, on_device: int, gain: str, devices: int
) -> tuple[bool | None, str]:
    """Whether it fits, and what to do where it does not."""
    largest = max(stages, key=lambda stage: stage.peak)
    peak = f"{largest.peak / 1e9:.2f} GB ({largest.name})"
    if on_device and device > SAFE * on_device:
        more = int(np.ceil(device * devices / (SAFE * on_device)))
        return False, (
            f"does not fit: needs {device / 1e9:.1f} GB on each of {devices} devices of {on_device / 1e9:.1f} GB:"
            f" use at least {more} devices"
        )
    if not limit[0]:
        return None, f"needs {peak}; this system does not state how much there is"
    of = f"of {limit[0] / 1e9:.1f} GB, {limit[1]}"
    if largest.peak <= SAFE * limit[0]:
        return True, f"fits: {peak} {of}"
    ways = [f"a machine with {largest.peak / SAFE / 1e9:.0f} GB", "fewer rows (pool.path with a part of them)"]
    if gain == "exact" and largest.name == "select":
        ways.insert(0, "sampler.gain=first_order")
    return False, f"does not fit: needs {peak} {of}: use {', or '.join(ways)}"
