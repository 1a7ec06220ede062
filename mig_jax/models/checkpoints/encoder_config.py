"""The fields of an encoder's config.json that decide the computation: BERT, RoBERTa, XLM-R and MPNet in one dataclass.

Source of the names: transformers/models/{bert,roberta,xlm_roberta,mpnet}/configuration_*.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.config_fields import activation_errors, count_errors, eps_errors

MPNET_BUCKETS = 32  # transformers uses this number, whatever the config says
_MPNET_PAD = 1  # and this as the id of padding, after which positions begin


@dataclass(frozen=True)
class EncoderConfig:
    """An encoder. Dropout is left out: there is no training here.

    Args:
      vocab_size, hidden_size, num_layers, num_heads, intermediate_size: counts, >= 1.
      max_positions: tokens of the longest text, its special tokens included, >= 1.
      first_position: row of the position table for a text's first token; RoBERTa leaves the first rows unused.
      types: rows of the table of token types; 0: there is no such table.
      eps: of every layer norm.
      activation: one of ``config_fields.ACTIVATIONS``.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    max_positions: int
    first_position: int = 0
    types: int = 2
    eps: float = 1e-12
    activation: str = "gelu"


_COUNTS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "max_positions": "max_position_embeddings",
}


def bert_config(raw: Mapping[str, Any], where: str = "config.json") -> EncoderConfig:
    """BERT's config.json; UserError with every field that is missing or unusable."""
    return _read(raw, where)


def roberta_config(raw: Mapping[str, Any], where: str = "config.json") -> EncoderConfig:
    """RoBERTa's and XLM-R's config.json; UserError with every field that is missing or unusable.

    A text's positions are ``pad_token_id + 1, pad_token_id + 2, ...``, so of 514 position embeddings texts have 512.
    """
    pad = raw.get("pad_token_id", 1)
    if type(pad) is not int or pad < 0:
        return _read(raw, where, wrong=(f"pad_token_id must be a whole number >= 0, not {pad!r}",))
    return _read(raw, where, first_position=pad + 1)


def mpnet_config(raw: Mapping[str, Any], where: str = "config.json") -> EncoderConfig:
    """MPNet's config.json; UserError with every field that is missing or unusable."""
    buckets, wrong = raw.get("relative_attention_num_buckets", MPNET_BUCKETS), ()
    if buckets != MPNET_BUCKETS:
        wrong = (f"relative_attention_num_buckets is {buckets!r}; must be {MPNET_BUCKETS}",)
    return _read(raw, where, first_position=_MPNET_PAD + 1, typed=False, wrong=wrong)


def _read(
    raw: Mapping[str, Any], where: str, *, first_position: int = 0, typed: bool = True, wrong: tuple[str, ...] = ()
) -> EncoderConfig:
    """Read the names that these families have in common.

    Args:
      raw, where: config.json and its name for messages.
      first_position: see ``EncoderConfig``.
      typed: ``type_vocab_size`` counts.
      wrong: errors that the family itself has found.

    Raises:
      UserError: with every field that is missing or unusable.
    """
    names = _COUNTS | ({"types": "type_vocab_size"} if typed else {})
    eps, activation = raw.get("layer_norm_eps", 1e-12), raw.get("hidden_act", "gelu")
    errors = count_errors({name: raw.get(name) for name in names.values()})
    errors += eps_errors("layer_norm_eps", eps) + activation_errors(activation)
    if (raw.get("position_embedding_type") or "absolute") != "absolute":
        errors.append(f"position_embedding_type is {raw['position_embedding_type']!r}; must be absolute")
    if raw.get("is_decoder", False):
        errors.append(f"is_decoder is {raw['is_decoder']!r}; must be false")
    errors += wrong
    if not errors and raw["hidden_size"] % raw["num_attention_heads"]:
        errors.append(f"hidden_size {raw['hidden_size']} is no multiple of {raw['num_attention_heads']} heads")
    if not errors and raw["max_position_embeddings"] <= first_position:
        errors.append(
            f"max_position_embeddings {raw['max_position_embeddings']} leaves no room: texts begin at {first_position}"
        )
    if errors:
        raise UserError(f"{where}: " + "; ".join(errors))
    fields = {field: raw[name] for field, name in names.items()} | {"first_position": first_position}
    fields["max_positions"] -= first_position
    return EncoderConfig(**({"types": 0} | fields), eps=float(eps), activation=activation)
