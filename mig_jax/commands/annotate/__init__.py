"""``mig-jax annotate``: raw rows in, the same rows with tags and scores out."""
