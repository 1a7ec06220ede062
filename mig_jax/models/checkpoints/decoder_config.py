"""The fields of a decoder's config.json that decide the computation: Llama, Mistral, Qwen2, Qwen3 in one dataclass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.config_fields import activation_errors, count_errors, eps_errors


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding (Su et al. 2021): frequencies ``theta^(-2k/K)``, then scaled.

    Args:
      theta: the base.
      kind: "default"; "linear": every frequency / factor; "llama3": low frequencies / factor, high frequencies
        unchanged, a ramp between them (Llama 3.1); "factors": each frequency / its own factor (in GGUF files).
      factor: >= 1, of linear and llama3.
      low, high: ends of llama3's ramp, in wavelengths per ``original`` tokens.
      original: llama3's context length before scaling, tokens.
      factors: of "factors"; K/2 numbers.
    """

    theta: float = 10_000.0
    kind: str = "default"
    factor: float = 1.0
    low: float = 1.0
    high: float = 4.0
    original: int = 8192
    factors: tuple[float, ...] = ()


@dataclass(frozen=True)
class DecoderConfig:
    """A decoder-only transformer: pre-norm, rotary, gated feed-forward.

    Args:
      vocab_size .. max_positions: counts, >= 1.
      eps: of every RMS norm.
      activation: one of ``config_fields.ACTIVATIONS``, of the gate.
      windows: of each layer, the number of latest tokens that a token attends to, itself included; None: all.
      qkv_bias, out_bias, mlp_bias: whether these maps have a bias.
      qk_norm: RMS norm over each head of queries and keys (Qwen3).
      tied: the output uses the input's table.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    max_positions: int
    eps: float
    activation: str
    rope: Rope
    windows: tuple[int | None, ...]
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool
    qk_norm: bool
    tied: bool

    @classmethod
    def from_json(cls, raw: Mapping[str, Any], where: str = "config.json") -> "DecoderConfig":
        """Read the Hugging Face names; UserError with every field that is missing or unusable."""
        kind = raw.get("model_type")
        raw = _ABSENT.get(str(kind), {}) | dict(raw)
        counts: dict[str, Any] = {name: raw.get(name) for name in _COUNTS}
        counts["num_key_value_heads"] = _get(raw, "num_key_value_heads", counts["num_attention_heads"])
        heads, hidden = counts["num_attention_heads"], counts["hidden_size"]
        whole = type(heads) is int and type(hidden) is int and heads > 0
        counts["head_dim"] = _get(raw, "head_dim", hidden // heads if whole else None)
        eps, activation = raw.get("rms_norm_eps", 1e-6), raw.get("hidden_act", "silu")
        wrong = count_errors(counts) + eps_errors("rms_norm_eps", eps) + activation_errors(activation)
        if not wrong and heads % counts["num_key_value_heads"]:
            wrong.append(f"{heads} heads are no multiple of {counts['num_key_value_heads']} key/value heads")
        if not wrong and counts["head_dim"] % 2:
            wrong.append(f"head_dim {counts['head_dim']} is odd and cannot be rotated")
        rope = _rope(raw, counts["head_dim"], wrong)
        windows = _windows(raw, counts["num_hidden_layers"], wrong)
        if wrong:
            raise UserError(f"{where}: " + "; ".join(wrong))
        attention_bias = bool(raw.get("attention_bias", False))
        return cls(
            vocab_size=counts["vocab_size"],
            hidden_size=hidden,
            num_layers=counts["num_hidden_layers"],
            num_heads=heads,
            num_kv_heads=counts["num_key_value_heads"],
            head_dim=counts["head_dim"],
            intermediate_size=counts["intermediate_size"],
            max_positions=counts["max_position_embeddings"],
            eps=float(eps),
            activation=activation,
            rope=rope,
            windows=windows,
            qkv_bias=kind == "qwen2" or attention_bias,
            out_bias=attention_bias and kind in ("llama", "qwen3"),
            mlp_bias=bool(raw.get("mlp_bias", False)),
            qk_norm=kind == "qwen3",
            tied=bool(raw.get("tie_word_embeddings", False)),
        )


# The values of absent fields; null means none (transformers' configuration_*.py).
_QWEN = {"max_position_embeddings": 32_768, "num_key_value_heads": 32, "sliding_window": 4096, "max_window_layers": 28}
_ABSENT: dict[str, dict[str, Any]] = {
    "llama": {"max_position_embeddings": 2048},  # absent in the files of the first Llama
    "mistral": {"max_position_embeddings": 4096 * 32, "num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": _QWEN,
    "qwen3": _QWEN | {"head_dim": 128},
}
_COUNTS = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
           "max_position_embeddings")  # fmt: skip


def _get(raw: Mapping[str, Any], name: str, default: Any) -> Any:
    """A field, or the default where it is absent or null."""
    return default if raw.get(name) is None else raw[name]


def _rope(raw: Mapping[str, Any], head_dim: Any, wrong: list[str]) -> Rope:
    """``rope_parameters`` (transformers 5), or ``rope_theta`` and ``rope_scaling`` (before)."""
    scaling = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(scaling, Mapping):
        wrong.append(f"rope_parameters must be an object, not {scaling!r}")
        return Rope()
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    rope = {"theta": _get(scaling, "rope_theta", _get(raw, "rope_theta", 10_000.0)), "kind": kind}
    names = {
        "default": {},
        "linear": {"factor": "factor"},
        "llama3": {
            "factor": "factor",
            "low": "low_freq_factor",
            "high": "high_freq_factor",
            "original": "original_max_position_embeddings",
        },
        "factors": {},
    }
    if not isinstance(kind, str) or kind not in names:
        wrong.append(f"rope type is {kind!r}; must be one of default, linear, llama3")
        return Rope()
    rope |= {field: scaling.get(name) for field, name in names[kind].items()}
    bad = [f"{name}={value!r}" for name, value in rope.items() if name != "kind" and not _positive(value)]
    if kind == "llama3" and not bad and rope["high"] <= rope["low"]:
        bad.append(f"high_freq_factor {rope['high']} is not above low_freq_factor {rope['low']}")
    factors = scaling.get("factors") if kind == "factors" else []
    if not isinstance(factors, list) or not all(map(_positive, factors)):
        bad.append("factors must be a list of numbers > 0")
    elif kind == "factors" and len(factors) * 2 != head_dim:
        bad.append(f"{len(factors)} factors for a head of {head_dim}")
    if bad:
        wrong.append(f"rope parameters of type {kind}: {', '.join(bad)}")
        return Rope()
    return Rope(**rope, factors=tuple(factors or ()))


def _positive(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < float("inf")


def _windows(raw: Mapping[str, Any], layers: Any, wrong: list[str]) -> tuple[int | None, ...]:
    """From ``layer_types``; where it is absent: the last layers of a Qwen with windows, all layers of a Mistral."""
    if type(layers) is not int:
        return ()
    window = raw.get("sliding_window")
    if raw.get("model_type") in ("qwen2", "qwen3") and not raw.get("use_sliding_window", False):
        window = None
    errors_before = len(wrong)
    if window is not None and (type(window) is not int or window < 1):
        wrong.append(f"sliding_window must be a whole number >= 1 or null, not {window!r}")
    first = raw.get("max_window_layers", 0) if raw.get("model_type") in ("qwen2", "qwen3") else 0
    if type(first) is not int or first < 0:
        wrong.append(f"max_window_layers must be a whole number >= 0, not {first!r}")
    kinds = raw.get("layer_types")
    if kinds is not None and not isinstance(kinds, list):
        wrong.append(f"layer_types must be a list or null, not {kinds!r}")
    elif kinds is not None:
        unknown = sorted({str(kind) for kind in kinds} - {"full_attention", "sliding_attention"})
        if unknown or len(kinds) != layers:
            wrong.append(f"layer_types has {len(kinds)} of {layers} layers{f', with {unknown}' if unknown else ''}")
    if len(wrong) > errors_before:
        return ()
    if kinds is not None:
        return tuple(window if kind == "sliding_attention" else None for kind in kinds)
    if raw.get("model_type") == "llama":
        window = None  # transformers' Llama has none, whatever the config has
    return tuple(window if layer >= first else None for layer in range(layers))
