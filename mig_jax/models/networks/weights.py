"""Checkpoint tensors -> the state of an NNX model and back, by a weight map that is data and total.

Every key of the files is mapped or listed as ignored, every variable of the model is filled once, shapes agree; all
errors are raised at once. One tensor at a time is in host memory, and is copied directly to its devices.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from safetensors.numpy import save_file

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.tensors import FLOATS, Tensor
from mig_jax.models.networks.sharding import place, shardings

Model = TypeVar("Model", bound=nnx.Module)


class WeightRule(NamedTuple):
    """One line of a weight map.

    Args:
      source: key in a Hugging Face checkpoint; ``{n}`` stands for a layer's number.
      target: dotted path in the model, with the same ``{n}``.
      transform: a key of ``TRANSFORMS``.
    """

    source: str
    target: str
    transform: str = "same"


class WeightMap(NamedTuple):
    """All keys of a family's checkpoints.

    Args:
      rules: one for each variable of the model.
      ignored: patterns of keys that the model does not need.
      base: an optional prefix of the keys (``bert.``, ``model.``).
      renamed: endings in old files -> those of the rules (``gamma`` -> ``weight``).
    """

    rules: tuple[WeightRule, ...]
    ignored: tuple[str, ...] = ()
    base: str = ""
    renamed: tuple[tuple[str, str], ...] = ()


class Transform(NamedTuple):
    """Between the layouts of a tensor in the file and in the model."""

    load: Callable[[np.ndarray, tuple[int, ...]], np.ndarray]
    save: Callable[[np.ndarray], np.ndarray]


def _turned(tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return tensor.T.reshape(shape)


TRANSFORMS: dict[str, Transform] = {
    "same": Transform(lambda w, shape: w.reshape(shape), lambda v: v),
    "flat": Transform(lambda w, shape: w.reshape(shape), lambda v: v.reshape(-1)),
    # torch stores a linear layer as [out, in]; here it is [in, *out] ("outputs") or [*in, out] ("inputs").
    "outputs": Transform(_turned, lambda v: v.reshape(v.shape[0], -1).T),
    "inputs": Transform(_turned, lambda v: v.reshape(-1, v.shape[-1]).T),
}


def load_model(
    build: Callable[[], Model], weights: WeightMap, tensors: Sequence[Tensor], mesh: Mesh | None = None
) -> Model:
    """Build the model with these weights; random initial values never exist.

    Args:
      build: makes the model, with any ``rngs``; it runs under ``nnx.eval_shape`` only.
      tensors: all of the checkpoint's.
      mesh: the devices, by the rules of sharding.py; None: the default device.

    Raises:
      UserError: naming every key without a rule, every variable without a key or with several, and every shape or
        type that does not fit.
    """
    graphdef, abstract = nnx.split(nnx.eval_shape(build))
    wanted = {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(abstract)}
    sources, wrong = _match(tensors, weights)
    wrong += _misfits(sources, wanted, weights)
    if wrong:
        raise UserError(_report(tensors[0].file.parent if tensors else Path(), wrong))
    goals = {} if mesh is None else dict(nnx.to_flat_state(shardings(abstract, mesh)))
    filled = {}
    for path, leaf in nnx.to_flat_state(abstract):
        [(tensor, transform)] = sources[".".join(map(str, path))]
        value = TRANSFORMS[transform].load(tensor.read(), leaf.get_value().shape)
        value = np.ascontiguousarray(value, dtype=leaf.get_value().dtype)
        filled[path] = leaf.replace(place(value, goals.get(path)))
    return nnx.merge(graphdef, nnx.from_flat_state(filled))


def save_model(
    model: nnx.Module,
    weights: WeightMap,
    folder: Path,
    *,
    config: Mapping[str, Any] | None = None,
    shard_bytes: int = 5 * 10**9,
) -> list[Path]:
    """Write the model as a Hugging Face checkpoint, which ``transformers`` loads.

    One shard at a time is in host memory.

    Args:
      folder: exists; files of the same names are replaced.
      config: written as config.json, with the weights' type; ``Checkpoint.config``, of GGUF files too, will do. None:
        the folder has one.
      shard_bytes: maximal size of a file, except for a larger tensor; several files get an index.
    """
    flat = {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(nnx.state(model))}
    entries = [(source, flat[target], how) for source, target, how in _expanded(weights, flat)]
    shards: list[list] = [[]]
    for entry in sorted(entries, key=lambda entry: entry[0]):
        size = sum(leaf.get_value().nbytes for _, leaf, _ in shards[-1])
        if shards[-1] and size + entry[1].get_value().nbytes > shard_bytes:
            shards.append([])
        shards[-1].append(entry)
    names = [f"model-{n:05}-of-{len(shards):05}.safetensors" for n in range(1, len(shards) + 1)]
    names = names if len(shards) > 1 else ["model.safetensors"]
    for name, shard in zip(names, shards, strict=True):
        host = {
            key: np.ascontiguousarray(TRANSFORMS[how].save(np.asarray(leaf.get_value()))) for key, leaf, how in shard
        }
        save_file(host, folder / name, metadata={"format": "pt"})
    if len(shards) > 1:
        file_of = {key: name for name, shard in zip(names, shards, strict=True) for key, _, _ in shard}
        total = sum(leaf.get_value().nbytes for leaf in flat.values())
        index = {"metadata": {"total_size": total}, "weight_map": file_of}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    if config is not None:
        dtypes = {str(leaf.get_value().dtype) for leaf in flat.values()}
        written = {key: value for key, value in config.items() if key != "torch_dtype"} | {"dtype": min(dtypes)}
        (folder / "config.json").write_text(json.dumps(written, indent=2) + "\n")
    return [folder / name for name in names]


def _expanded(weights: WeightMap, flat: dict[str, nnx.Variable]) -> list[tuple[str, str, str]]:
    """(key, path, transform) of every variable."""
    entries = []
    for name in flat:
        for rule in weights.rules:
            if match := re.fullmatch(_pattern(rule.target), name):
                entries.append((_numbered(rule.source, match), name, rule.transform))
                break
        else:
            raise ValueError(f"the weight map has no rule for {name}")
    return entries


def _pattern(template: str) -> str:
    return re.escape(template).replace(r"\{n\}", r"(\d+)")


def _numbered(template: str, match: re.Match) -> str:
    return template.replace("{n}", match.group(1)) if match.groups() else template


class _Source(NamedTuple):
    """The tensor that fills a variable, and its transform."""

    tensor: Tensor
    transform: str


def _match(tensors: Sequence[Tensor], weights: WeightMap) -> tuple[dict[str, list[_Source]], list[str]]:
    """Dotted path -> the tensors mapped to it, and a line for every tensor without a rule."""
    sources, wrong = defaultdict(list), []
    rules = [(re.compile(_pattern(rule.source.removeprefix(weights.base))), rule) for rule in weights.rules]
    ignored = [re.compile(pattern) for pattern in weights.ignored]
    for tensor in tensors:
        key = tensor.key.removeprefix(weights.base)
        for old, new in weights.renamed:
            key = key.removesuffix(old) + new if key.endswith(old) else key
        for pattern, rule in rules:
            if match := pattern.fullmatch(key):
                sources[_numbered(rule.target, match)].append(_Source(tensor, rule.transform))
                break
        else:
            if not any(pattern.fullmatch(tensor.key) for pattern in ignored):
                wrong.append(f"unexpected tensor {tensor.key} {list(tensor.shape)}")
    return dict(sources), wrong


def _misfits(sources: dict[str, list[_Source]], wanted: dict[str, nnx.Variable], weights: WeightMap) -> list[str]:
    """A line for every variable, tensor or shape that violates the one-to-one map."""
    keys = {name: key for key, name, _ in _expanded(weights, wanted)}
    wrong = [
        f"no tensor for {name} {list(leaf.get_value().shape)}: {keys[name]} is missing"
        for name, leaf in wanted.items()
        if name not in sources
    ]
    for name, found in sources.items():
        if name not in wanted:
            wrong.append(f"{' and '.join(source.tensor.key for source in found)}: this model has no {name}")
        elif len(found) > 1:
            wrong.append(f"{' and '.join(source.tensor.key for source in found)}: {len(found)} tensors for {name}")
        else:
            [(tensor, transform)] = found
            # A view of one number with the variable's shape: saved, it shows the shape of the file, without memory.
            shape = TRANSFORMS[transform].save(_shape_only(wanted[name].get_value())).shape
            if tensor.shape != shape:
                wrong.append(f"{tensor.key}: shape {list(tensor.shape)}, not {list(shape)}, for {name}")
            if tensor.dtype not in FLOATS:
                wrong.append(f"{tensor.key}: type {tensor.dtype}, not a float of 16, 32 or 64 bits")
    return wrong


def _shape_only(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    """An array of the shape whose reshapes and transposes cost nothing but an index."""
    return np.broadcast_to(np.float32(0), leaf.shape)


def _report(folder: Path, wrong: Sequence[str], most: int = 40) -> str:
    more = [f"... and {len(wrong) - most} more"] if len(wrong) > most else []
    return f"{folder}: the weights do not fit the model:\n  " + "\n  ".join([*sorted(wrong)[:most], *more])
