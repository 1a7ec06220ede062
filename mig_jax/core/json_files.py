"""Plain JSON from what a run has at hand: numpy, paths, tuples, non-finite floats, broken text."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np


def clean_text(text: str) -> str:
    """``text`` with lone surrogates as ``?``: a pool's JSON may escape them, UTF-8 and Arrow cannot hold them."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def jsonable(value: Any) -> Any:
    """``value`` as dicts, lists, strings, numbers and None; non-finite floats become None (JSON has no NaN).

    Raises:
      TypeError: a value that has no plain form; silently writing its repr would hide a mistake of the caller.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return clean_text(str(value))  # str(): an enum of strings is its value's subclass
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.generic):
        return jsonable(value.item())
    if isinstance(value, np.ndarray):
        return jsonable(value.tolist())
    if isinstance(value, Mapping):
        return {clean_text(str(key)): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, set | frozenset):
        return [jsonable(item) for item in sorted(value)]
    if isinstance(value, Path):
        return clean_text(str(value))
    if isinstance(value, msgspec.Struct):
        return jsonable(msgspec.structs.asdict(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return jsonable({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    raise TypeError(f"no JSON form for {type(value).__name__}: {value!r:.80}")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as UTF-8 JSON in the order of its keys, with a newline at the end."""
    text = json.dumps(jsonable(value), ensure_ascii=False, allow_nan=False, indent=1)
    path.write_bytes(text.encode("utf-8") + b"\n")
