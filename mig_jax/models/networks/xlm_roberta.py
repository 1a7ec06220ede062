"""RoBERTa (Liu et al. 2019) and XLM-R (Conneau et al. 2020): BERT with positions that begin after the padding's id.

Source of names and numerics: transformers/models/{roberta,xlm_roberta}/modeling_*.py.
"""

from collections.abc import Mapping
from typing import Any

from mig_jax.models.checkpoints.weights import WeightMap
from mig_jax.models.networks.encoder import EncoderConfig, ignored, read_config, stack_rules


def config_from_json(raw: Mapping[str, Any], where: str = "config.json") -> EncoderConfig:
    """Read config.json; UserError with every field that is missing or unusable.

    A text's positions are ``pad_token_id + 1, pad_token_id + 2, ...``, so of 514 position embeddings texts have 512.
    """
    pad = raw.get("pad_token_id", 1)
    if type(pad) is not int or pad < 0:
        return read_config(raw, where, wrong=(f"pad_token_id must be a whole number >= 0, not {pad!r}",))
    return read_config(raw, where, first_position=pad + 1)


def weight_map(*, pooler: bool = False) -> WeightMap:
    """Checkpoints with or without the prefix ``roberta.``; the masked-word head and others are ignored."""
    return WeightMap(stack_rules(pooler=pooler), ignored("roberta.", pooler=pooler), base="roberta.")
