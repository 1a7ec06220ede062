"""``mig-jax plan``: sizes, measured numbers, and what follows from them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import msgspec
import numpy as np

from mig_jax.commands.plan import graph as graphs
from mig_jax.commands.plan.config import PlanKeys
from mig_jax.commands.plan.engine import JUDGED, Shape, measure_engine, measure_judge, measured_rows, rehearse
from mig_jax.commands.plan.keep import Keep, machine
from mig_jax.commands.plan.memory import device_limit, host_limit, resident
from mig_jax.commands.plan.pool import Sizes, cached_entry, identity, measure_pool, sources_of
from mig_jax.commands.plan.predict import Stage, graph_facts, stages
from mig_jax.commands.select.config import SelectConfig
from mig_jax.commands.select.inputs import mesh_of
from mig_jax.core.errors import UserError
from mig_jax.core.progress import Progress, silent
from mig_jax.core.timing import Stopwatch
from mig_jax.objective import make_phi
from mig_jax.pool.configured import bundled_pool
from mig_jax.pool.sources import Source, resolve
from mig_jax.samplers import find_sampler

LABELS, TAGS, ROW_BYTES = 4_531, 4.0, 3_200  # of Tulu3's pool, where the keys do not say
SAFE = 0.9  # of the memory: the system and the file cache want some
Whole = Annotated[int, msgspec.Meta(ge=1)]


@dataclass(frozen=True)
class Plan:
    """``stages`` in order; ``memory`` bytes by what holds them; ``limit`` (bytes, what says so), 0: unknown.

    ``verdict`` is (fits, a sentence); fits is None where nothing is known of the machine.
    """

    sizes: Sizes
    budgets: tuple[int, ...]
    settings: dict[str, Any]
    stages: list[Stage]
    counts: dict[str, float]
    memory: dict[str, float]
    limit: tuple[int, str]
    device_limit: int
    verdict: tuple[bool | None, str]
    notes: list[str]
    machine: dict[str, Any]
    measured: list[str]
    factors: dict[str, Any]

    @property
    def peak(self) -> int:
        """Bytes of the host at most."""
        return max(stage.peak for stage in self.stages)

    def total(self, what: str) -> float:
        """Seconds of all stages; ``what`` is cold or cached."""
        return sum(getattr(stage, what) for stage in self.stages)


def run_plan(config: SelectConfig, keys: PlanKeys, *, start: float | None = None, progress: Progress = silent) -> Plan:
    """Look at the pool and the machine; nothing is written but the cache.

    ``start``: seconds that the command took to begin; None: as the stopwatch has it.

    Raises:
      UserError: what a run would stop at too, as far as the first rows show it.
    """
    start = Stopwatch().seconds.get("start", 0.0) if start is None else start
    if config.mesh.coordinator is not None or config.mesh.processes is not None or config.mesh.process is not None:
        raise UserError("mesh.coordinator: a plan measures one process; leave mesh.coordinator and its like out")
    sampler = find_sampler(config.sampler.name)
    asked = () if sampler.takes_all else config.budgets
    if keys.rows is not None and asked:
        _check_budget(asked[-1], keys.rows)
    phi_keys = msgspec.to_builtins(config.phi)
    phi = make_phi(**phi_keys)
    mesh = mesh_of(config.mesh)
    given = graphs.given_graph(config)
    cache = Path(config.cache).expanduser() if config.cache else None
    keep = Keep(cache, keys.measure)
    base = resident()
    # The pool.
    there = keys.rows is None
    sources = sources_of(config) if there else resolve([str(bundled_pool())])
    progress("plan: pool", 0, None)
    size = sum(_bytes(source) for source in sources) if there else keys.rows * (keys.bytes or ROW_BYTES)  # type: ignore
    like = None if there else keys.bytes or ROW_BYTES
    settings = msgspec.to_builtins([config.pool, config.score])
    pool = keep.get(
        "pool",
        [like, min(size, 1 << 26)] if like else [identity(sources), settings],
        lambda: measure_pool(config, sources, like, size),
    )
    entry = cached_entry(config, sources, cache) if there else None
    sizes = _sizes(keys, sources, size, pool, entry, len(given.labels) if given else None)
    points = round(sizes.rows * sizes.usable)
    budgets = asked or (points,)
    _check_budget(budgets[-1], points)
    # The engine.
    degree = config.graph.degree if given is None else float(given.facts()["mean_degree"])
    degree = float(np.clip(degree, 0, max(sizes.labels - 1, 0)))
    gain = getattr(config.sampler, "gain", "first_order")
    shape = Shape(points, sizes.labels, round(sizes.tags, 1), round(degree, 1), gain, config.engine.shortlist)
    progress("plan: engine", 0, None)
    same = shape._replace(rows=measured_rows(shape))
    engine = keep.get(
        "engine",
        [same, phi_keys, config.engine.heap_device, mesh.size],
        lambda: measure_engine(same, phi, mesh, config.engine.heap_device),
    )
    judged = shape._replace(rows=min(points, JUDGED), c1=0)
    judge = keep.get(
        "judge",
        [judged, phi_keys, config.export.runners_up],
        lambda: measure_judge(judged, phi, mesh, config.export.runners_up),
    )
    counts: dict[str, float] = {"passes": 0.0, "looks": 0.0, "scale": 1.0}
    if config.sampler.name == "mig":
        progress("plan: rehearsal", 0, None)
        counts = keep.get("rehearsal", [shape, budgets[-1], phi_keys], lambda: rehearse(shape, budgets[-1], phi, mesh))
    # The graph.
    progress("plan: label graph", 0, None)
    graph = _graph(config, given is not None, sizes, entry, cache, keep)
    graph["platform"] = jax.devices()[0].platform
    found, memory = stages(
        sizes, budgets, config.engine.shortlist, config.sampler.name, pool, engine, judge, counts, graph, base, start,
        degree, mesh.size,
    )  # fmt: skip
    limit, on_device = host_limit(), device_limit()
    peak = max(stage.peak for stage in found)
    settings = {
        "sampler": config.sampler.name, "gain": gain, "phi": config.phi.kind, "degree": degree, "tags": sizes.tags,
        "c1": config.engine.shortlist, "devices": mesh.size,
    }  # fmt: skip
    notes = _notes(sizes, pool, engine, counts, degree, config.sampler.name, there)
    if {"vectors", "rows"} & set(sampler.needs):
        notes.append(
            f"sampler={config.sampler.name}: what it takes itself, and embedding the rows, is not in this plan;"
            " experiments/README.md has what was measured"
        )
    if config.limits.tokens is not None:
        notes.append("limits.tokens: the plan is of n rows; how many fit is known when the rows are read")
    verdict = _verdict(peak, limit, memory["each device"], on_device, found, gain, mesh.size)
    return Plan(
        sizes, budgets, settings, found, counts, memory, limit, on_device, verdict, notes, machine(), keep.measured,
        {"pool": pool, "engine": engine, "judge": judge},
    )  # fmt: skip


def _check_budget(n: int, points: int) -> None:
    if n > points:
        raise UserError(f"n={n}: the plan is of {points:,} usable rows; n can be at most that")


def _bytes(source: Source) -> int:
    if source.format == "hf":
        raise UserError(
            f"{source.path}: a plan reads no data set of the hub; say what it is like with plan.rows=, plan.labels=,"
            " plan.tags= and plan.bytes="
        )
    return Path(source.path).stat().st_size


def _sizes(
    keys: PlanKeys, sources: list[Source], size: int, pool: dict[str, Any], entry: dict[str, Any] | None,
    graph_labels: int | None,
) -> Sizes:  # fmt: skip
    """What the keys say goes before what the cache knows, and that before what the slice shows."""
    if keys.rows is not None:
        row = keys.bytes or ROW_BYTES
        how = f"as plan.* says ({row:,} bytes a row)"
        labels, tags = keys.labels or graph_labels or LABELS, keys.tags or TAGS
        return Sizes(keys.rows, size, size, labels, min(tags, labels), 1.0, False, "", how)
    whole = pool["slice"] >= 0.99 * size and len(sources) == 1
    rows = entry["rows"] if entry else max(1, round(size / pool["row_bytes"]))
    grown = (
        pool["labels"]
        if whole
        else pool["labels"] * max(1.0, rows * pool["row_bytes"] / pool["slice"]) ** pool["growth"]
    )
    labels = keys.labels or round(min(grown, len(entry["names"])) if entry else grown)
    tags = keys.tags or max(1.0, pool["tags"])
    if entry:
        how = "exact rows, from the pool cache; labels and tags a row from it and the first rows"
    elif whole:
        how = "all of it was read"
    else:
        how = f"estimated from the first {pool['slice'] / 1e6:.0f} MB: {pool['row_bytes']:,.0f} bytes a row"
    text = round(rows * pool["text_bytes"])
    return Sizes(rows, size, text, max(labels, 1), tags, pool["usable"], entry is not None, sources[0].compression, how)


def _graph(config: SelectConfig, given: bool, sizes: Sizes, entry, cache: Path | None, keep: Keep) -> dict[str, Any]:
    if given:
        return graph_facts(sizes, True, False, "", None, None)
    cosines = keep.get(
        "cosines", [config.graph.degree], lambda: graphs.measure_cosines(384, min(config.graph.degree, 64.0))
    )
    if entry and graphs.is_cached(config, entry["names"], cache):
        return graph_facts(sizes, False, True, "", None, cosines)
    missing = graphs.embedder_missing(config)
    embed = None
    if not missing:
        key = msgspec.to_builtins(config.embedder)
        embed = keep.get("embedding", key, lambda: graphs.measure_embedding(config))
    return graph_facts(sizes, False, False, missing, embed, cosines)


def _notes(sizes: Sizes, pool, engine, counts, degree: float, sampler: str, there: bool) -> list[str]:
    """What the numbers rest on."""
    notes = [f"sizes: {sizes.how}; {sizes.usable:.1%} of the rows usable"]
    if not there:
        notes.append("parsing was measured on the bundled rows, their dialogs repeated to the planned length")
    if sampler == "mig":
        notes.append(
            f"full passes and looks: counted in runs of the engine on synthetic pools {counts['scale']:.3g} and"
            f" {2 * counts['scale']:.3g} times smaller in rows, labels, picks and c1 (it is nearly self-similar)"
            if counts["scale"] > 1
            else "full passes and looks: counted in a run of the engine on a synthetic pool of this size"
        )
        notes.append(
            f"seconds of the engine: a linear law fitted to its runs on {engine['rows']:,} synthetic rows and a quarter"
            f" of them (median error {engine['error']:.0%}); {sizes.tags:.1f} labels a row, degree {degree:.1f}"
        )
        notes.append("tags are drawn as 1/rank^0.8; many rows with equal tags and equal scores take more passes")
    notes.append(f"reading and encoding: the first {pool['slice'] / 1e6:.0f} MB, linear from there; files in memory")
    notes.append("seconds are those of the machine left alone; other programs on it add theirs")
    return notes


def _verdict(
    peak: int, limit: tuple[int, str], device: float, on_device: int, found: list[Stage], gain: str, devices: int
) -> tuple[bool | None, str]:
    """Whether it fits, and what to do where it does not."""
    where = max(found, key=lambda stage: stage.peak).name
    if on_device and device > SAFE * on_device:
        more = int(np.ceil(device * devices / (SAFE * on_device)))
        return False, (
            f"needs {device / 1e9:.1f} GB on each of {devices} devices of {on_device / 1e9:.1f} GB:"
            f" use at least {more} devices"
        )
    if not limit[0]:
        return None, f"needs {peak / 1e9:.2f} GB; this system does not say how much there is"
    if peak <= SAFE * limit[0]:
        return True, f"fits: {peak / 1e9:.2f} GB ({where}) of {limit[0] / 1e9:.1f} GB, {limit[1]}"
    ways = [f"a machine with {peak / SAFE / 1e9:.0f} GB", "fewer rows (pool.path with a part of them)"]
    if gain == "exact" and where in ("layout", "full passes", "heap", "compile"):
        ways.insert(0, "sampler.gain=first_order")
    return False, (
        f"does not fit: needs {peak / 1e9:.2f} GB ({where}) of {limit[0] / 1e9:.1f} GB, {limit[1]}: use "
        + ", or ".join(ways)
    )
