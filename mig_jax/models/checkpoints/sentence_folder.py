"""Settings of an embedder that sentence-transformers stores in the folder of a checkpoint."""

import json
from pathlib import Path
from typing import Any

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.architectures import ARCHITECTURES
from mig_jax.models.checkpoints.checkpoint import read_json

_POOLING = "1_Pooling"
_MODULES = ("Transformer", "Pooling", "Normalize")
_MODES = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "last"}
_HALF = ("bfloat16", "float16")


def sentence_settings(folder: Path) -> dict[str, Any]:
    """``group`` (bert or decoder, of conf/embedder) and the keys of it that the folder sets.

    Where it has no pooling of sentence-transformers, an encoder takes the mean and a decoder its last token. A folder
    that does not exist sets nothing; opening it raises the error later.

    Normalize in modules.json is ignored. Similarities of labels are cosines, which sentence-transformers computes for
    vectors of any length; conf/embedder normalises, and a label graph refuses vectors that are not. So a folder without
    Normalize gives the same graph.

    Raises:
      UserError: a file cannot be read, or names a pooling or a module that is not supported.
    """
    config = _object(folder / "config.json")
    causal = folder.suffix == ".gguf" or _is_causal(config.get("model_type"))
    settings: dict[str, Any] = {"group": "decoder" if causal else "bert"}
    file = folder / _modules(folder / "modules.json").get("Pooling", _POOLING) / "config.json"
    pooling = _object(file)
    modes = [mode for mode, on in pooling.items() if mode.startswith("pooling_mode_") and on is True]
    if pooling:
        if len(modes) != 1 or modes[0] not in _MODES:
            message = f"sets {' and '.join(modes) or 'no pooling'}; must set one of {', '.join(_MODES)}"
            raise UserError(message, where=file)
        settings["pooling"] = _MODES[modes[0]]
    longest = _object(folder / "sentence_bert_config.json").get("max_seq_length")
    if type(longest) is int and longest > 0:
        settings["max_length"] = longest
    if causal and _object(folder / "tokenizer_config.json").get("add_eos_token") is True:
        settings["append_eos"] = "true"
    if causal and config.get("dtype", config.get("torch_dtype")) in _HALF:
        settings["dtype"] = "bfloat16"
    return settings


def _modules(file: Path) -> dict[str, str]:
    """The modules in their order, kind -> folder; empty where there is no such file."""
    if not file.is_file():
        return {}
    try:
        steps = json.loads(file.read_text(encoding="utf-8"))
        # The type is a dotted path of Python; only its last part is the same in all versions.
        folders = {str(step["type"]).rsplit(".", 1)[-1]: str(step["path"]) for step in steps}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"must be a JSON list of objects with type and path ({error!r})", where=file) from error
    unknown = [kind for kind in folders if kind not in _MODULES]
    if unknown:
        raise UserError(f"names the module {' and '.join(unknown)}", allowed=_MODULES, where=file)
    return folders


def _object(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}


def _is_causal(model_type: Any) -> bool:
    return isinstance(model_type, str) and model_type in ARCHITECTURES and ARCHITECTURES[model_type].causal
