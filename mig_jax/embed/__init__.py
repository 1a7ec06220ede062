"""``mig-jax embed``: which texts, the shards that finished batches are kept in, and the run around them."""

from mig_jax.embed.run import Embedded, run_embed
from mig_jax.embed.shards import Shards
from mig_jax.embed.texts import Texts, texts_of

__all__ = ["Embedded", "Shards", "Texts", "run_embed", "texts_of"]
