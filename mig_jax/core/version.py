"""The version of mig_jax: a part of every run key, because another version may give other bytes."""

VERSION = "0.1.0"
