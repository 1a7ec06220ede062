"""The label graph against the reference's own adjacency (yichengchen24/MIG @969eb53) of the same embeddings."""

import json

import numpy as np
import pytest

from mig_jax.labels import label_graph


@pytest.mark.parametrize("threshold", [0.65, 0.9])
def test_edges_are_the_reference_s(shared, threshold):
    folder = shared / "golden" / "public" / "mig"
    labels = json.loads((folder / "labels.json").read_text())
    graph = label_graph(labels, np.load(folder / "label_embeddings.npy"), threshold=threshold)
    with np.load(folder / f"wam_T{round(threshold * 100):03d}.npz") as z:
        row, col, val = z["row"], z["col"], z["val"]
    upper = row < col
    order = np.lexsort((col[upper], row[upper]))
    np.testing.assert_array_equal(graph.source, row[upper][order])
    np.testing.assert_array_equal(graph.target, col[upper][order])
    np.testing.assert_allclose(graph.weight, val[upper][order], atol=2e-6, rtol=0)
    diagonal = np.zeros(len(labels))
    diagonal[row[row == col]] = val[row == col]
    np.testing.assert_allclose(graph.diagonal, diagonal, atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    ("name", "threshold", "alpha"), [("T065", 0.65, 1.0), ("T065_alpha2", 0.65, 2.0), ("T090", 0.9, 1.0)]
)
def test_columns_are_normalised_by_the_reference_s_sums(shared, name, threshold, alpha):
    """Its column sums before normalising are recorded: they are what each entry of P is W divided by."""
    folder = shared / "golden" / "public" / "mig"
    labels = json.loads((folder / "labels.json").read_text())
    graph = label_graph(labels, np.load(folder / "label_embeddings.npy"), threshold=threshold)
    p = graph.propagation(alpha)
    with np.load(folder / f"sel_{name}.npz") as z:
        expected = z["wprop_degree_f64"]
    row = np.repeat(np.arange(len(labels)), np.diff(p.ptr))
    on_diagonal = row == p.idx
    np.testing.assert_allclose(graph.diagonal / p.val[on_diagonal], expected, rtol=2e-6)
