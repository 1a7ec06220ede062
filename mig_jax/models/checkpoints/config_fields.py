"""Fields that the config.json of encoders and decoders have in common, and the checks of their values."""

from collections.abc import Mapping
from typing import Any

ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "tanh")
"""The values of ``hidden_act`` that the networks have; ``networks.layers.ACTIVATIONS`` holds the functions."""


def count_errors(counts: Mapping[str, Any]) -> list[str]:
    """A line for each field (name -> value) that is not a whole number >= 1."""
    return [
        f"{name} must be a whole number >= 1, not {value!r}"
        for name, value in counts.items()
        if type(value) is not int or value < 1
    ]


def eps_errors(name: str, eps: Any) -> list[str]:
    """A line where the constant of a norm is not a number in [0, 1)."""
    right = type(eps) in (int, float) and 0 <= eps < 1
    return [] if right else [f"{name} must be a number in [0, 1), not {eps!r}"]


def activation_errors(activation: Any) -> list[str]:
    """A line where ``hidden_act`` is not one of ``ACTIVATIONS``."""
    right = isinstance(activation, str) and activation in ACTIVATIONS
    return [] if right else [f"hidden_act is {activation!r}; must be one of {', '.join(ACTIVATIONS)}"]
