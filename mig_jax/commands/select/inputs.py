"""From a configuration to the inputs of a selection."""

import jax
import numpy as np
from jaxtyping import Float64

from mig_jax.commands.select.config import SelectConfig
from mig_jax.config.mesh import MeshConfig
from mig_jax.core.errors import UserError
from mig_jax.encode import Encoded, columns_read, encode, scores
from mig_jax.encode.config import ScoreConfig
from mig_jax.encode.score import ALLOWED
from mig_jax.engine import pool_mesh
from mig_jax.labels.valid_tags import read_valid_tags
from mig_jax.pool import Pool
from mig_jax.pool.config import PoolConfig
from mig_jax.samplers.config import SamplerOptions


def columns_of(config: SelectConfig) -> tuple[str, ...]:
    """The paths of the numbers that a selection reads besides the usual ones."""
    limits = config.limits
    asked = [*columns_read(config.score.source)]
    own = getattr(config.sampler, "score", None)
    asked += [] if own is None else columns_read(own, "sampler.score")
    asked += [limits.cost] if limits.tokens is not None and limits.cost not in ("tokens", "chars") else []
    return tuple(dict.fromkeys(asked))


def ranking_of(
    options: SamplerOptions, score: str, turns: str, pool: Pool, encoded: Encoded
) -> Float64[np.ndarray, " M"] | None:
    """What the sampler ranks by: the score that its options name, or else the pool's; NaN where a point has none.

    Args:
      score, turns: the pool's (``score.from``, ``score.turns``).

    Raises:
      UserError: no point has one; it is of a column that was not read.
    """
    if not hasattr(options, "score"):
        return None
    asked, own = getattr(options, "score", None), getattr(options, "turns", turns)
    if asked is None and own == turns:
        return encoded.score
    source, key = (score, "score.from") if asked is None else (asked, "sampler.score")
    value, missing, wrong = (found[encoded.row] for found in scores(pool, source, own, key))
    if (missing | wrong).all():
        raise UserError(
            f"sampler={options.name}: none of the {len(encoded)} usable rows has the score that it ranks by,"
            f" {key}={source}; sampler.score may be {ALLOWED}"
        )
    return np.where(missing | wrong, np.nan, value)


def encoded_of(pool: Pool, config: PoolConfig, score: ScoreConfig, bare: bool = False) -> Encoded:
    """The usable rows, under the configured vocabulary and score; ``bare``: of a pool without tags or scores too."""
    return encode(
        pool,
        valid_tags=None if config.valid_tags is None else read_valid_tags(config.valid_tags),
        score=score.source,
        turns=score.turns,
        normalize=score.normalize,
        on_error=config.on_error,
        bare=bare,
    )


def mesh_of(config: MeshConfig):
    """The devices that share the rows."""
    devices = jax.devices()
    if config.pool == "all":
        return pool_mesh(devices)
    if config.pool > len(devices):
        raise UserError(f"mesh.pool={config.pool}: must be all, or at most {len(devices)}, the devices there are")
    if jax.process_count() > 1:
        raise UserError(f"mesh.pool={config.pool}: with several processes it must be all")
    return pool_mesh(devices[: config.pool])
