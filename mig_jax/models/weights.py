"""safetensors -> the state of an NNX model, by a weight map that is data and total.

Every key of the files is mapped or listed as ignored, every variable of the model is filled once, shapes agree; all
that is wrong is raised at once. One tensor at a time is in host memory. Nothing is unpickled.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import jax
import numpy as np
from flax import nnx
from jax.sharding import AbstractMesh, NamedSharding
from safetensors import SafetensorError, safe_open

from mig_jax.errors import UserError

Model = TypeVar("Model", bound=nnx.Module)


class Rule(NamedTuple):
    """One line of a weight map.

    Args:
      pattern: regular expression for a whole key of the file.
      target: dotted path in the model, with ``\\1`` for the pattern's groups; None: the key is ignored, on purpose.
      transform: a key of ``TRANSFORMS``, applied to the tensor.
    """

    pattern: str
    target: str | None
    transform: str = "same"


TRANSFORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "same": lambda w: w,
    "transpose": lambda w: w.T,  # torch keeps a linear layer as [out, in], flax as [in, out]
}


class _Tensor(NamedTuple):
    """A tensor of a file, as its header tells it."""

    key: str
    file: Path
    shape: tuple[int, ...]
    dtype: str


class _Source(NamedTuple):
    """Where a variable comes from."""

    tensor: _Tensor
    transform: str


def load_model(build: Callable[[], Model], rules: Sequence[Rule], files: Sequence[Path]) -> Model:
    """Build the model with the weights of the files in it; random initial values never exist.

    Args:
      build: makes the model, with any ``rngs``; it runs under ``nnx.eval_shape`` only.
      rules: the weight map; the first rule whose pattern fits a key decides.
      files: one or more .safetensors files (the shards of one checkpoint).

    Raises:
      UserError: naming every file that cannot be read, or else every key without a rule, every variable without a key
        or with several, and every shape or type that does not fit.
    """
    graphdef, abstract = nnx.split(nnx.eval_shape(build))
    flat = dict(nnx.to_flat_state(abstract))
    wanted = {".".join(map(str, path)): variable.get_value() for path, variable in flat.items()}
    sources, wrong = _match(_headers(files), rules)
    wrong += _misfits(sources, wanted)
    if wrong:
        raise UserError(_report(files[0].parent, wrong))
    values = {}
    for file in files:
        with safe_open(file, framework="numpy") as reader:
            for name, [source] in sources.items():
                if source.tensor.file == file:
                    values[name] = _place(reader.get_tensor(source.tensor.key), source.transform, wanted[name])
    filled = {path: variable.replace(values[".".join(map(str, path))]) for path, variable in flat.items()}
    return nnx.merge(graphdef, nnx.from_flat_state(filled))


def _headers(files: Sequence[Path]) -> list[_Tensor]:
    """The tensors of all files, as their headers tell them; one UserError names every file that cannot be read."""
    tensors, wrong = [], []
    for file in files:
        if file.suffix != ".safetensors":
            wrong.append(f"{file}: not .safetensors; pickled weights (.bin, .pt) can run code and are not read")
            continue
        try:
            with safe_open(file, framework="numpy") as reader:
                for key in reader.keys():  # noqa: SIM118 (a reader is no dict)
                    view = reader.get_slice(key)
                    tensors.append(_Tensor(key, file, tuple(view.get_shape()), view.get_dtype()))
        except (SafetensorError, OSError) as error:
            state = f"{file.stat().st_size} bytes" if file.is_file() else "no such file"
            wrong.append(f"{file}: cut short or not safetensors ({state}; {error})")
    if wrong:
        raise UserError("\n".join(wrong))
    return tensors


def _match(tensors: Sequence[_Tensor], rules: Sequence[Rule]) -> tuple[dict[str, list[_Source]], list[str]]:
    """Dotted path -> the tensors that go there, and a line for every tensor that no rule knows."""
    sources, wrong = defaultdict(list), []
    for tensor in tensors:
        for rule in rules:
            if match := re.fullmatch(rule.pattern, tensor.key):
                if rule.target is not None:
                    sources[match.expand(rule.target)].append(_Source(tensor, rule.transform))
                break
        else:
            wrong.append(f"unexpected tensor {tensor.key} {list(tensor.shape)}")
    return dict(sources), wrong


def _misfits(sources: dict[str, list[_Source]], wanted: dict[str, jax.ShapeDtypeStruct]) -> list[str]:
    """A line for everything that keeps the map from being one to one and onto."""
    wrong = [f"no tensor for {name} {list(leaf.shape)}" for name, leaf in wanted.items() if name not in sources]
    for name, found in sources.items():
        keys = " and ".join(source.tensor.key for source in found)
        if name not in wanted:
            wrong.append(f"{keys}: this model has no {name}")
        elif len(found) > 1:
            wrong.append(f"{keys}: {len(found)} tensors for {name}")
        else:
            [(tensor, transform)] = found
            # A view of one number with the tensor's shape: the transform shows the shape it will give, without memory.
            shape = TRANSFORMS[transform](np.broadcast_to(np.float32(0), tensor.shape)).shape
            if shape != wanted[name].shape:
                wrong.append(f"{tensor.key}: shape {list(shape)}, not {list(wanted[name].shape)}, for {name}")
            if tensor.dtype not in ("F64", "F32", "F16", "BF16"):
                wrong.append(f"{tensor.key}: type {tensor.dtype}, not a float of 16, 32 or 64 bits")
    return wrong


def _place(tensor: np.ndarray, transform: str, leaf: jax.ShapeDtypeStruct) -> jax.Array:
    """The tensor in the model's layout and type, straight on the devices where the abstract leaf wants it."""
    value = np.ascontiguousarray(TRANSFORMS[transform](tensor), dtype=leaf.dtype)
    sharding = leaf.sharding
    if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, AbstractMesh):
        # Under jax.set_mesh eval_shape knows the mesh's axes and not its devices.
        sharding = NamedSharding(jax.sharding.get_mesh(), sharding.spec)
    return jax.device_put(value, sharding)


def _report(folder: Path, wrong: Sequence[str], most: int = 40) -> str:
    more = [f"... and {len(wrong) - most} more"] if len(wrong) > most else []
    return f"{folder}: the weights do not fit the model:\n  " + "\n  ".join([*sorted(wrong)[:most], *more])
