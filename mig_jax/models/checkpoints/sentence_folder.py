"""How a checkpoint's folder wants its embeddings made, as far as it says so: sentence-transformers writes it there."""

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


def folder_says(folder: Path) -> dict[str, Any]:
    """``group`` (bert or decoder, of conf/embedder) and the keys of it that the folder decides.

    Where it has no pooling of sentence-transformers, an encoder takes the mean and a decoder its last token. A folder
    that is not there says nothing; what then is wrong with it is told by who opens it.

    Whether modules.json has Normalize is not told: similarities of labels are cosines, and sentence-transformers takes
    them of vectors of any length by dividing by it. conf/embedder divides, a label graph refuses what is not divided,
    and so a folder without Normalize gives the graph that its cosines give.

    Raises:
      UserError: a file of it cannot be read, or asks for a pooling or another module that there is not.
    """
    config = _object(folder / "config.json")
    causal = folder.suffix == ".gguf" or _is_causal(config.get("model_type"))
    said: dict[str, Any] = {"group": "decoder" if causal else "bert"}
    file = folder / _modules(folder / "modules.json").get("Pooling", _POOLING) / "config.json"
    pooling = _object(file)
    asked = [mode for mode, on in pooling.items() if mode.startswith("pooling_mode_") and on is True]
    if pooling:
        if len(asked) != 1 or asked[0] not in _MODES:
            raise UserError(
                f"{file}: asks for {' and '.join(asked) or 'no pooling'}; there is {', '.join(_MODES)}, one of them"
            )
        said["pooling"] = _MODES[asked[0]]
    longest = _object(folder / "sentence_bert_config.json").get("max_seq_length")
    if type(longest) is int and longest > 0:
        said["max_length"] = longest
    if causal and _object(folder / "tokenizer_config.json").get("add_eos_token") is True:
        said["append_eos"] = "true"
    if causal and config.get("dtype", config.get("torch_dtype")) in _HALF:
        said["dtype"] = "bfloat16"
    return said


def _modules(file: Path) -> dict[str, str]:
    """What runs one after the other, kind -> folder; nothing where there is no such file."""
    if not file.is_file():
        return {}
    try:
        steps = json.loads(file.read_text(encoding="utf-8"))
        # The type is a dotted path of Python, which differs between versions but for its end.
        found = {str(step["type"]).rsplit(".", 1)[-1]: str(step["path"]) for step in steps}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{file}: must be a JSON list of objects with type and path ({error!r})") from error
    unknown = [kind for kind in found if kind not in _MODULES]
    if unknown:
        raise UserError(
            f"{file}: the embeddings go through {' and '.join(unknown)}, which is not read; there is "
            f"{', '.join(_MODULES)}"
        )
    return found


def _object(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}


def _is_causal(model_type: Any) -> bool:
    return isinstance(model_type, str) and model_type in ARCHITECTURES and ARCHITECTURES[model_type].causal
