"""Logits of a few tokens after each text: for a scorer that answers with a digit.

Letters as in packing.py: N texts, n of a batch, B rows, L tokens in a row; P slots for texts of a batch, D hidden
size, C tokens of interest.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float32, Int, Int32

from mig_jax.core.errors import UserError
from mig_jax.models.inference.language_model import LanguageModel
from mig_jax.models.inference.loaded import in_flight, with_finite
from mig_jax.models.inference.packing import Batch, fill
from mig_jax.models.networks.sharding import constrain
from mig_jax.models.tokenizers.tokens import Tokens


def next_logits(
    model: LanguageModel, tokens: Tokens, batches: Iterable[Batch], ids: Sequence[int]
) -> Iterator[tuple[Batch, Float32[np.ndarray, "n C"]]]:
    """The logits of C tokens after the last token of each text, for the texts of some planned batches.

    The output layer runs at the ends of texts only, and for these C tokens only.

    Args:
      tokens: N texts that passed ``model.check``, none of those in a batch empty.
      batches: of ``plan_batches``; any of them, in any order.
      ids: C token ids.

    Returns:
      each batch with its n texts' logits, in the order of ``batches``. Not finite where a number in the model exceeds
      the range of its type, in this text or in another of its row.

    Raises:
      UserError: an id is out of range; the first texts have no finite logit at all.
    """
    outside = [i for i in ids if not 0 <= i < model.config.vocab_size]
    if outside:
        raise UserError(f"model {model.name} has no token {outside[0]}; must be 0 to {model.config.vocab_size - 1}")
    id_C = np.array(ids, np.int32)
    logits = in_flight(batches, lambda batch: _send(model, batch, tokens, id_C), _receive)
    return with_finite(logits, f"model {model.name}: logits")


def _send(model: LanguageModel, batch: Batch, tokens: Tokens, id_C: Int32[np.ndarray, " C"]) -> Array:
    loaded = model.loaded
    id_BxL, segment_BxL = fill(batch, tokens, multiple=loaded.row_multiple)
    at_P = np.zeros(len(id_BxL) * batch.slots, np.int32)
    at_P[: len(batch.text)] = batch.row * batch.width + batch.start + tokens.length[batch.text] - 1
    with loaded.on_mesh():
        logit_PxC = _next_logits(
            loaded.graphdef, loaded.state, *loaded.rows(id_BxL, segment_BxL), at_P, id_C, exact=loaded.exact
        )
    logit_PxC.copy_to_host_async()
    return logit_PxC


def _receive(batch: Batch, logit_PxC: Array) -> tuple[Batch, np.ndarray]:
    return batch, np.asarray(logit_PxC)[: len(batch.text)]


@functools.partial(jax.jit, static_argnames=("graphdef", "exact"))
def _next_logits(
    graphdef: nnx.GraphDef,
    state: nnx.State,
    id_BxL: Int[Array, "B L"],
    segment_BxL: Int[Array, "B L"],
    at_P: Int[Array, " P"],
    id_C: Int[Array, " C"],
    *,
    exact: bool,
) -> Float32[Array, "P C"]:
    """Run B rows; then the logits of C words at P tokens, counted through all rows. ``exact``: the model is float32."""
    with jax.default_matmul_precision("float32" if exact else "default"):
        model = nnx.merge(graphdef, state)
        last_BxLxD = model(id_BxL, segment_BxL).last_BxLxD
        x_TxD = last_BxLxD.reshape(-1, last_BxLxD.shape[-1])
        x_PxD = constrain(x_TxD.at[at_P].get(mode="promise_in_bounds"), "batch", None)
        logit_PxC = model.logits_of(x_PxD, id_C)
    return constrain(logit_PxC, None, None)
