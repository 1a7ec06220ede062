"""Label embeddings -> sparse W -> sparse P. A dense L x L matrix exists in tiles only."""

from mig_jax.labels.label_graph import LabelGraph, Propagation, label_graph

__all__ = ["LabelGraph", "Propagation", "label_graph"]
