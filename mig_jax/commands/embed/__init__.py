"""``mig-jax embed``: texts or labels -> embeddings. ``config`` and ``texts``, then ``run``.

Nothing is imported here: the settings of every command are checked at start, and ``run`` imports Flax.
"""
