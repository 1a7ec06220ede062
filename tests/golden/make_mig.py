"""Rebuild tests/golden/mig.npz from ../shared/golden/public/mig: the numbers of the reference's run that parity needs.

    python tests/golden/make_mig.py

Only rearranges what was recorded; nothing is computed but the labels of a row without their repeats. No text goes in:
labels are ids, rows are positions. Running it again gives the same bytes.
"""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[2] / "shared" / "golden" / "public" / "mig"
SETTINGS = ("T090", "T065", "T065_alpha0", "T065_alpha2", "T065_norm", "T065_exp", "T065_bs512", "T065_pow05",
            "T065_exp_a002")  # fmt: skip


def main() -> None:
    """Write mig.npz beside this file."""
    with np.load(SOURCE / "points.npz") as z:
        ptr, idx, score = z["label_ptr"], z["label_idx"], z["score"]
    labels = [list(dict.fromkeys(idx[a:b].tolist())) for a, b in pairwise(ptr)]
    out = {
        "score": score,
        "tags_with_repeats": np.diff(ptr).astype(np.int16),
        "label_ptr": np.cumsum([0, *map(len, labels)]).astype(np.int32),
        "label_idx": np.array([label for row in labels for label in row], np.int16),
    }
    for name in ("T090", "T065"):
        with np.load(SOURCE / f"wam_{name}.npz") as z:
            out |= {f"wam_{name}_{field}": z[field].astype(np.int16) for field in ("row", "col")}
            out |= {f"wam_{name}_val": z["val"], "num_labels": z["n"]}
    summary = json.loads((SOURCE / "summary.json").read_text())["settings"]
    for name in SETTINGS:
        with np.load(SOURCE / f"sel_{name}.npz") as z:
            assert np.array_equal(z["order"], z["forced_best"])
            out |= {
                f"{name}_order": z["order"].astype(np.int16),
                f"{name}_gain": z["gain_f32"],
                f"{name}_margin": z["forced_margin"],
                f"{name}_x": z["final_x_f32"],
                f"{name}_E": np.float64(summary[name]["E"]),
            }
            if "exact_order" in z.files:
                out |= {
                    f"{name}_exact_order": z["exact_order"].astype(np.int16),
                    f"{name}_exact_gain": z["exact_gain"],
                    f"{name}_exact_margin": z["exact_margin"],
                    f"{name}_exact_x": z["exact_final_x"],
                }
    np.savez_compressed(HERE / "mig.npz", **out)
    print(HERE / "mig.npz", (HERE / "mig.npz").stat().st_size, "bytes")


if __name__ == "__main__":
    main()
