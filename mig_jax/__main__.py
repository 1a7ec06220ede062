"""``python -m mig_jax``."""

from mig_jax.cli.main import main

main()
