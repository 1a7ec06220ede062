"""Every setting, as YAML; importable as mig_jax.conf after any install."""
