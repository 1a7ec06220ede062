"""Public objects are shown in one line, and in notebooks as a small table of escaped text."""

from dataclasses import replace

import numpy as np
import pytest

from mig_jax import label_graph, load_pool, select


@pytest.fixture(scope="module")
def shown():
    """Name -> object and what its line must contain."""
    pool = load_pool()
    labels = sorted({tag for row in range(len(pool)) for tag in pool.tags(row)})
    graph = label_graph(pool, embeddings=np.eye(len(labels), dtype=np.float32), threshold=0.5)
    picked = select(pool, n=5, graph=graph)
    return {
        "Pool": (pool, "rows=463"),
        "LabelGraph": (graph, f"labels={len(labels):,}, edges=0, threshold=0.5"),
        "Encoded": (picked.encoded, "rows=463"),
        "Selection": (picked, "rows=5 of 463, sampler=mig"),
        "Certificate": (picked.certificate, "bound="),
        "Curve": (picked.solved.curve, "picks=5"),
    }


@pytest.mark.parametrize("name", ["Pool", "LabelGraph", "Encoded", "Selection", "Certificate", "Curve"])
def test_an_object_is_one_line_and_one_table(shown, name: str):
    one, part = shown[name]
    text = repr(one)
    assert text.startswith(f"{name}(") and part in text and len(text) < 200 and "\n" not in text and "array" not in text
    html = one._repr_html_()
    assert html.startswith("<table>") and html.endswith("</table>") and f"<caption>{name}</caption>" in html
    assert html.count("<tr>") == text.count("=")


def test_text_of_a_user_is_escaped(shown):
    pool, _ = shown["Pool"]
    evil = "<script>\x1b[31m.jsonl"
    one = replace(pool, sources=(replace(pool.sources[0], path=evil),))
    assert "<script>␛[31m.jsonl" in repr(one) and "\x1b" not in repr(one)
    assert "&lt;script&gt;␛[31m.jsonl" in one._repr_html_() and "<script>" not in one._repr_html_()


def test_a_proven_share_is_not_rounded_up(shown):
    certificate, _ = shown["Certificate"]
    assert "ratio=99.9 %" in repr(certificate._replace(ratio=0.99999))


def test_a_graph_without_labels(shown):
    graph, _ = shown["LabelGraph"]
    assert repr(graph.restrict(())).startswith("LabelGraph(labels=0, edges=0")
