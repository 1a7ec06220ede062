"""The quality of the tags of ``tags=nearest``, compared with labels that people assigned.

    python -m experiments.check_tags --pool POOL --tags keywords --instruction input --output target --per 8

The rows of the pool have labels (BIG-bench: the keywords of each row's task). The vocabulary is all of these; the tags
of a row are the k labels nearest to its question, and a tag is right where the row has that label. Every task has the
same weight. The baseline assigns the k most frequent labels to every row. A second table has the number of tags above a
threshold and the share of these that is right.
"""

import argparse
import time
from collections import Counter

import numpy as np

from mig_jax.commands.annotate.nearest import asked_text, centred
from mig_jax.commands.annotate.nearest_labels import nearest_labels
from mig_jax.models.checkpoints.checkpoint import MINILM
from mig_jax.models.inference.embed import load_embedder
from mig_jax.pool import load_pool

RANKS = (1, 2, 3, 5, 10)
THRESHOLDS = (0.15, 0.2, 0.25, 0.31, 0.35, 0.4, 0.45)


def chosen_rows(pool, per: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """At most ``per`` rows of each set of labels, drawn, and which set each has."""
    names: dict[tuple[str, ...], list[int]] = {}
    for row in np.flatnonzero(pool.status == 0).tolist():
        names.setdefault(tuple(pool.tags(row)), []).append(row)
    names.pop((), None)
    rng = np.random.default_rng(seed)
    drawn = [np.sort(rng.permutation(rows)[:per]) for rows in names.values()]
    return np.concatenate(drawn), np.repeat(np.arange(len(drawn)), [len(rows) for rows in drawn])


def at_ranks(
    ranked: list[list[str]], right: list[set[str]], weight: np.ndarray, labels: list[str]
) -> dict[int, tuple[float, float, float]]:
    """Of the first k tags of each row: precision, recall, and the mean recall over labels."""
    metrics = {}
    for k in RANKS:
        of_label = []
        for label in labels:
            has = np.array([label in own for own in right])
            hit = np.array([label in tags[:k] for tags in ranked])
            of_label.append((weight * (has & hit)).sum() / (weight * has).sum())
        hits = np.array([len(set(tags[:k]) & own) for tags, own in zip(ranked, right, strict=True)])
        assigned = np.array([max(1, len(tags[:k])) for tags in ranked])
        wanted = np.array([len(own) for own in right])
        means = (weight * hits / assigned).sum(), (weight * hits / wanted).sum(), np.mean(of_label)
        metrics[k] = float(means[0]), float(means[1]), float(means[2])
    return metrics


def main() -> None:
    """The two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", required=True)
    parser.add_argument("--tags", required=True, help="path of a row's own labels")
    parser.add_argument("--instruction", help="path of the text, in a pool of no known layout")
    parser.add_argument("--output")
    parser.add_argument("--per", type=int, default=8, help="rows of each set of labels")
    parser.add_argument("--plain", action="store_true", help="tags.centre=false")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    fields = {"tags": args.tags, "instruction": args.instruction, "output": args.output}
    pool = load_pool(args.pool, fields={key: value for key, value in fields.items() if value})
    rows, task = chosen_rows(pool, args.per, args.seed)
    right = [set(pool.tags(row)) for row in rows.tolist()]
    labels = sorted(set().union(*right))
    weight = 1.0 / np.bincount(task)[task] / (task.max() + 1)
    start = time.perf_counter()
    embedder = load_embedder(MINILM)
    texts = [asked_text(exchanges) for exchanges in pool.each_exchanges(rows)]
    vector_NxD, label_LxD = embedder.embed(texts), embedder.embed(labels)
    label_LxD = label_LxD if args.plain else centred(label_LxD)
    label_NxC, cosine_NxC = nearest_labels(vector_NxD, label_LxD, threshold=-1.0, most=max(RANKS))
    ranked = [[labels[i] for i in row if i >= 0] for row in label_NxC.tolist()]
    counts = Counter(label for own, w in zip(right, weight, strict=True) for label in own for _ in range(int(w * 1e6)))
    frequent = [[label for label, _ in counts.most_common(max(RANKS))]] * len(rows)
    mean = float((weight * [len(own) for own in right]).sum())
    print(
        f"{len(rows):,} rows of {task.max() + 1} sets of labels, {len(labels)} labels, {mean:.1f} a row; "
        f"{time.perf_counter() - start:.0f} s\n"
    )
    print("| k | precision | recall | each label alike | most frequent: precision | recall | each label alike |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    ours, theirs = at_ranks(ranked, right, weight, labels), at_ranks(frequent, right, weight, labels)
    for k in RANKS:
        print(f"| {k} | {' | '.join(f'{one:.3f}' for one in (*ours[k], *theirs[k]))} |")
    print("\n| threshold, at most 5 | tags a row | of these right | recall | rows without |\n|--:|--:|--:|--:|--:|")
    for threshold in THRESHOLDS:
        above = [tags[:5][: int((c[:5] >= threshold).sum())] for tags, c in zip(ranked, cosine_NxC, strict=True)]
        hits = np.array([len(set(tags) & own) for tags, own in zip(above, right, strict=True)])
        assigned = np.array([len(tags) for tags in above])
        recall = float((weight * hits / np.array([len(own) for own in right])).sum())
        share = float((weight * hits).sum() / max((weight * assigned).sum(), 1e-12))
        without = float((weight * (assigned == 0)).sum())
        print(f"| {threshold} | {(weight * assigned).sum():.2f} | {share:.3f} | {recall:.3f} | {without:.1%} |")


if __name__ == "__main__":
    main()
