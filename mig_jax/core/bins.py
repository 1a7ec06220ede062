"""Edges of histograms."""

import numpy as np

BINS = 40


def log_edges(values: np.ndarray) -> np.ndarray:
    """Whole-number edges that grow by a factor and enclose every value >= 0: lengths of texts span four decades."""
    if len(values) == 0:
        return np.array([0.0, 1.0])
    low, high = max(int(values.min()), 1), max(int(values.max()), 1) + 1
    edges = np.unique(np.round(np.geomspace(low, high, BINS + 1)))
    return edges if values.min() >= 1 else np.concatenate([[0.0], edges])
