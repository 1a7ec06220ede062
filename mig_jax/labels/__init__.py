"""Label embeddings -> sparse W -> sparse P. Never a dense L x L kept beyond a tile."""

from mig_jax.labels.label_graph import LabelGraph, Propagation, label_graph

__all__ = ["LabelGraph", "Propagation", "label_graph"]
