"""Rebuild tests/golden/minilm_labels.npz from ../shared/golden/public/mig: 24 label embeddings of the reference's run.

    python tests/golden/make_minilm.py

Only copies rows of what sentence-transformers 6.2.0 (torch 2.13.0, CPU, float32) computed with all-MiniLM-L6-v2: mean,
normalised. No text goes in; the labels, which it prints, stand in tests/models/test_models_embed.py in the same order.
Running it again gives the same bytes.
"""

import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[2] / "shared" / "golden" / "public" / "mig"
COUNT = 24


def main() -> None:
    """Write minilm_labels.npz beside this file."""
    labels = json.loads((SOURCE / "labels.json").read_text(encoding="utf-8"))
    embeddings = np.load(SOURCE / "label_embeddings.npy")
    by_length = sorted(range(len(labels)), key=lambda i: (len(labels[i]), labels[i]))
    chosen = [
        by_length[round(k * (len(labels) - 1) / (COUNT - 1))] for k in range(COUNT)
    ]  # the shortest ... the longest
    vectors_24xD = embeddings[chosen]
    assert vectors_24xD.dtype == np.float32 and vectors_24xD.shape == (COUNT, 384)
    np.savez(HERE / "minilm_labels.npz", embedding=vectors_24xD)
    print([labels[i] for i in chosen])
    print(HERE / "minilm_labels.npz", (HERE / "minilm_labels.npz").stat().st_size, "bytes")


if __name__ == "__main__":
    main()
