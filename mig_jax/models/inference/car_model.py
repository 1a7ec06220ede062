"""CaR's scorer, found and run: texts -> one number each, one text a row.

A row is one text because the scorer takes mean and variance over the whole row (``car_scorer.LayerMix``).

Letters as in packing.py: N texts, n of a batch, B rows, L tokens in a row.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Int, Int64

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.checkpoint import ModelSpec, find_checkpoint
from mig_jax.models.inference.fingerprint import fingerprint_of, max_length_of
from mig_jax.models.inference.generate import Prompts, plan_prompts
from mig_jax.models.inference.loaded import (
    LoadedModel,
    in_flight,
    load_weights,
    with_finite,
)
from mig_jax.models.networks.car_scorer import CarConfig, CarScorer, weight_map
from mig_jax.models.networks.families import Family
from mig_jax.models.networks.sharding import constrain
from mig_jax.models.tokenizers.tokens import Tokenizer, Tokens, load_tokenizer

_FAMILY = Family(
    build=lambda config, options, head: CarScorer(config, options, rngs=nnx.Rngs(0)),
    weights=lambda config, head: weight_map(config),
)


@dataclass(frozen=True)
class LoadedScorer:
    """A scorer with its weights.

    Args:
      name: the model's name in messages.
      loaded: the ``CarScorer`` on the devices between which the rows of a batch are split.
      config: of it.
    """

    name: str
    loaded: LoadedModel
    config: CarConfig

    def run(self, tokens: Tokens, batches: Iterable[Prompts]) -> Iterator[tuple[Prompts, Float32[np.ndarray, "n 1"]]]:
        """The scores of the texts of some planned batches, in the order given.

        Not finite where the numbers inside the model left its type's range.

        Raises:
          UserError: the first texts have not one finite score among them.
        """
        found = in_flight(batches, lambda batch: self._send(batch, tokens), self._receive)
        return with_finite(found, f"model {self.name}: scores")

    def _send(self, batch: Prompts, tokens: Tokens) -> Array:
        model = self.loaded
        id_BxL, segment_BxL = np.zeros(
            (2, -(-batch.rows // model.row_multiple) * model.row_multiple, batch.width), np.int32
        )
        for row, text in enumerate(batch.text.tolist()):
            ids = tokens.id[tokens.ptr[text] : tokens.ptr[text + 1]]
            id_BxL[row, : len(ids)], segment_BxL[row, : len(ids)] = ids, 1
        with model.on_mesh():
            score_B = _score(model.graphdef, model.state, *model.rows(id_BxL, segment_BxL), exact=model.exact)
        score_B.copy_to_host_async()
        return score_B

    def _receive(self, batch: Prompts, score_B: Array) -> tuple[Prompts, np.ndarray]:
        return batch, np.asarray(score_B)[: len(batch.text), None]


@dataclass(frozen=True)
class FoundScorer:
    """A scorer whose files were found and checked, its weights not yet read.

    Args:
      name: the model's name in messages.
      fingerprint: sha256 over everything that decides a score.
      tokenizer: cuts texts to ``max_length`` tokens.
      config: of the network.
      max_length: tokens of a text that count, special ones included.
      load: reads the weights; UserError where they do not fit, see ``load_model``.
    """

    name: str
    fingerprint: str
    tokenizer: Tokenizer
    config: CarConfig
    max_length: int
    load: Callable[[], LoadedScorer]

    def check(self, tokens: Tokens) -> None:
        """UserError where the tokenizer gave an id that the model does not have."""
        words = self.config.encoder.vocab_size
        if len(tokens.id) and tokens.id.max() >= words:
            raise UserError(
                f"model {self.name}: its tokenizer gives id {tokens.id.max()}, its model has {words} words: tokenizer "
                "and weights are of different checkpoints"
            )

    def plan(self, length_N: Int64[np.ndarray, " N"], batch_tokens: int) -> tuple[Prompts, ...]:
        """All batches, the longest texts first; texts of 0 tokens are in none."""
        return plan_prompts(length_N, self.max_length, batch_tokens, batch_tokens, np.flatnonzero(length_N > 0))


def find_car_scorer(spec: ModelSpec, *, mesh: Mesh | None = None) -> FoundScorer:
    """Find and check a scorer. The weights are not needed for cached scores.

    Args:
      mesh: see ``LoadedModel``.

    Raises:
      UserError: see ``find_checkpoint``; no source of weights is configured; max_length is beyond the positions.
    """
    if spec.path is None and spec.wheel is None and spec.hub is None:
        raise UserError(
            f"no weights for model {spec.name} (car.model.path is not set): CaR's published scorers are pickles "
            "(.ckpt), which are never read. Where torch is installed and the file is trusted, write the tensors of its "
            "state_dict under their own names (encoder.model.*, layerwise_attention.*, estimator.ff.*) to "
            "DIR/model.safetensors, and beside it the encoder's tokenizer and config.json with the hidden_sizes of "
            "hparams.yaml added to it; then car.model.path=DIR"
        )
    checkpoint = find_checkpoint(spec)
    where = str(checkpoint.config_file)
    if checkpoint.config["model_type"] not in ("xlm-roberta", "roberta"):
        raise UserError(
            f"{where}: architecture {checkpoint.config['model_type']!r}; CaR's scorer is an xlm-roberta with a head"
        )
    config = CarConfig.from_json(checkpoint.config, where)
    max_length = max_length_of(spec, config.encoder.max_positions, where)
    tokenizer = load_tokenizer(checkpoint.tokenizer_source, max_length)
    fingerprint = fingerprint_of(checkpoint, spec, tokenizer.sha256, max_length=max_length, scorer="car")

    def load() -> LoadedScorer:
        weights = load_weights(_FAMILY, config, checkpoint.tensors(), spec, mesh, head=True)
        return LoadedScorer(spec.name, weights, config)

    return FoundScorer(spec.name, fingerprint, tokenizer, config, max_length, load)


@functools.partial(jax.jit, static_argnames=("graphdef", "exact"))
def _score(
    graphdef: nnx.GraphDef,
    state: nnx.State,
    id_BxL: Int[Array, "B L"],
    segment_BxL: Int[Array, "B L"],
    *,
    exact: bool,
) -> Float32[Array, " B"]:
    """Scores of B rows; rows of padding give a number that means nothing. ``exact``: the model is float32."""
    with jax.default_matmul_precision("float32" if exact else "default"):
        return constrain(nnx.merge(graphdef, state)(id_BxL, segment_BxL), None)
