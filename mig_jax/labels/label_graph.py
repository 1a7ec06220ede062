"""The label graph W and its propagation matrix P, sparse throughout."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64, Int32, Int64

from mig_jax.core.errors import UserError
from mig_jax.core.files import open_atomic
from mig_jax.core.html import Described
from mig_jax.core.progress import Progress, silent
from mig_jax.labels.cosine import cosine_edges, densest_edges, self_cosines

FORMAT = 1


class Propagation(NamedTuple):
    """P in CSR: P[l, m] is the mass that a unit of label l adds at label m; nnz entries.

    ``ptr`` int64 ``[L+1]``, ``idx`` int32 ``[nnz]`` ascending within a row, ``val`` float64 ``[nnz]`` > 0.
    """

    ptr: Int64[np.ndarray, " L1"]
    idx: Int32[np.ndarray, " nnz"]
    val: Float64[np.ndarray, " nnz"]


@dataclass(frozen=True, repr=False)
class LabelGraph(Described):
    """W[p, q] = cos(p, q) where >= threshold, else 0 (MIG, section 3.1). L labels, E edges p < q, each stored once.

    Args:
      labels: names, sorted.
      diagonal: W[p, p], as computed (1 up to rounding); float32 ``[L]``.
      source, target: the edges p < q, sorted; int32 ``[E]``.
      weight: their cosines; float32 ``[E]``, in (0, 1].
      threshold: the T of these edges.
      automatic: whether T was computed from a mean degree.
    """

    labels: tuple[str, ...]
    diagonal: Float32[np.ndarray, " L"]
    source: Int32[np.ndarray, " E"]
    target: Int32[np.ndarray, " E"]
    weight: Float32[np.ndarray, " E"]
    threshold: float
    automatic: bool = False

    @property
    def degree(self) -> Int64[np.ndarray, " L"]:
        """The number of other labels that each label is joined to; int64 ``[L]``."""
        count = len(self.labels)
        return np.bincount(self.source, minlength=count) + np.bincount(self.target, minlength=count)

    def _facts(self) -> dict[str, str]:
        facts = self.facts()
        return {
            "labels": f"{facts['labels']:,}",
            "edges": f"{facts['edges']:,}",
            "threshold": f"{self.threshold:g}" + " (auto)" * self.automatic,
            "mean_degree": f"{facts['mean_degree']:.2f}",
            "isolated": f"{facts['isolated_share']:.1%}",
        }

    def facts(self) -> dict[str, float | int | bool]:
        """The size and the degrees of the graph, for the manifest and for messages."""
        degree = self.degree
        return {
            "labels": len(self.labels),
            "edges": len(self.source),
            "threshold": self.threshold,
            "automatic": self.automatic,
            "mean_degree": float(degree.mean()) if len(degree) else 0.0,
            "max_degree": int(degree.max(initial=0)),
            "isolated_share": float((degree == 0).mean()) if len(degree) else 0.0,
        }

    def warnings(self) -> list[str]:
        """A message where the graph is nearly empty or nearly full; else nothing."""
        facts, count = self.facts(), len(self.labels)
        setting = f"graph.threshold={self.threshold:g}"
        if count > 10 and facts["isolated_share"] > 0.9:
            return [
                f"{setting} isolates {facts['isolated_share']:.1%} of the {count} labels: the graph is nearly empty."
                " Use graph.threshold=auto, or the threshold that suits this embedder."
            ]
        if count > 10 and facts["mean_degree"] > 0.5 * (count - 1):
            return [
                f"{setting} joins each of the {count} labels to {facts['mean_degree']:.0f} others on average: the graph"
                " is nearly full, so labels hardly differ. Use graph.threshold=auto or a higher threshold."
            ]
        return []

    def propagation(self, alpha: float = 1.0) -> Propagation:
        """P = A / column sums of A, with A = diag(W) + alpha offdiag(W): every column sums to 1.

        The column, not the row, is normalised: yichengchen24/MIG @969eb53 divides by ``P.sum(axis=0)``.

        Raises:
          UserError: alpha is negative or not finite.
        """
        if not (np.isfinite(alpha) and alpha >= 0):
            raise UserError(key="graph.propagation", value=alpha, allowed="a finite number >= 0 (the paper uses 1.0)")
        count = len(self.labels)
        off = np.float64(alpha) * self.weight.astype(np.float64) if alpha > 0 else np.empty(0)
        p, q = (self.source, self.target) if alpha > 0 else (self.source[:0], self.target[:0])
        row = np.concatenate([np.arange(count), p, q])
        col = np.concatenate([np.arange(count), q, p])
        val = np.concatenate([self.diagonal.astype(np.float64), off, off])
        keep = val > 0  # a cosine of exactly 0 at T = 0 is no edge
        row, col, val = row[keep], col[keep], val[keep]
        order = np.lexsort((col, row))
        row, col, val = row[order], col[order], val[order]
        column_sum = np.bincount(col, weights=val, minlength=count)
        ptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=count))]).astype(np.int64)
        return Propagation(ptr, col.astype(np.int32), val / column_sum[col])

    def digest(self) -> str:
        """sha256 of all that a selection depends on."""
        h = hashlib.sha256(repr((FORMAT, self.threshold, len(self.labels))).encode())
        h.update("\0".join(self.labels).encode("utf-8", "surrogatepass"))
        for array in (self.diagonal, self.source, self.target, self.weight):
            h.update(np.ascontiguousarray(array).tobytes())
        return h.hexdigest()

    def save(self, path: Path | str) -> None:
        """Write an .npz of plain arrays (no pickle)."""
        text, offsets = _pack(self.labels)
        with open_atomic(Path(path)) as file:
            np.savez(
                file,
                format=np.int64(FORMAT),
                label_text=text,
                label_ptr=offsets,
                diagonal=self.diagonal,
                source=self.source,
                target=self.target,
                weight=self.weight,
                threshold=np.float64(self.threshold),
                automatic=np.bool_(self.automatic),
            )

    @classmethod
    def load(cls, path: Path | str) -> "LabelGraph":
        """Read a file that ``save`` wrote.

        Raises:
          UserError: the file is missing, is no label graph, or is damaged.
        """
        try:
            # Opened here: np.load does not close a file that it cannot read.
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as z:
                if int(z["format"]) != FORMAT:
                    raise UserError(
                        f"label graph of format {int(z['format'])}; this version reads {FORMAT}", where=path
                    )
                graph = cls(
                    _unpack(z["label_text"], z["label_ptr"]),
                    z["diagonal"],
                    z["source"],
                    z["target"],
                    z["weight"],
                    float(z["threshold"]),
                    bool(z["automatic"]),
                )
        except UserError:
            raise
        except FileNotFoundError:
            raise UserError("no such label graph", where=path) from None
        except Exception as error:  # a damaged file raises errors of zipfile, numpy or zlib
            raise UserError(f"not a label graph that mig_jax saved ({error})", where=path) from None
        count = len(graph.labels)
        ends = np.concatenate([graph.source, graph.target])
        if len(graph.diagonal) != count or (len(ends) and not (ends.min() >= 0 and ends.max() < count)):
            raise UserError("the label graph's arrays do not fit each other; build it again", where=path)
        return graph

    def restrict(self, labels: tuple[str, ...]) -> "LabelGraph":
        """The subgraph of these labels, in this order (sorted).

        Raises:
          UserError: the graph lacks one of them.
        """
        if labels == self.labels:
            return self
        position = {name: i for i, name in enumerate(self.labels)}
        missing = [name for name in labels if name not in position]
        if missing:
            shown = ", ".join(repr(name) for name in missing[:3])
            raise UserError(
                f"the stored label graph lacks {len(missing)} of the pool's {len(labels)} labels ({shown}, ...);"
                " build it from these labels, or give pool.valid_tags"
            )
        old = np.array([position[name] for name in labels], np.int64)
        new = np.full(len(self.labels), -1, np.int64)
        new[old] = np.arange(len(labels))
        p, q = new[self.source], new[self.target]
        keep = (p >= 0) & (q >= 0)
        low, high = np.minimum(p, q)[keep], np.maximum(p, q)[keep]
        order = np.lexsort((high, low))
        return LabelGraph(
            tuple(labels),
            self.diagonal[old],
            low[order].astype(np.int32),
            high[order].astype(np.int32),
            self.weight[keep][order],
            self.threshold,
            self.automatic,
        )


def label_graph(
    labels: Sequence[str],
    embeddings: Float[np.ndarray, "L d"],
    *,
    threshold: float | str = "auto",
    degree: float = 4.0,
    progress: Progress = silent,
) -> LabelGraph:
    """Build W from label embeddings of unit length.

    Args:
      labels: distinct names.
      embeddings: float ``[L, d]``, rows of unit length.
      threshold: T in [0, 1], or "auto": the T at which labels have ``degree`` neighbours on average.
      degree: that mean degree, >= 0.

    Raises:
      UserError: names an argument that is out of range, or a label twice.
    """
    labels = tuple(labels)
    if len(labels) != len(embeddings):
        raise UserError(f"{len(labels)} labels, but {len(embeddings)} label embeddings")
    if len(set(labels)) != len(labels):
        raise UserError("a label occurs twice in the label graph")
    embeddings = np.asarray(embeddings, np.float32)
    diagonal = self_cosines(embeddings)
    if threshold == "auto":
        if not (np.isfinite(degree) and degree >= 0):
            raise UserError(key="graph.degree", value=degree, allowed="a finite number >= 0")
        automatic, p, q, w = densest_edges(embeddings, degree, progress=progress)
        return LabelGraph(labels, diagonal, p, q, w, automatic, automatic=True)
    value = check_threshold(threshold)
    return LabelGraph(labels, diagonal, *cosine_edges(embeddings, value, progress=progress), value)


def check_threshold(threshold: float | str) -> float:
    """T as a number in [0, 1].

    A negative weight would let a label remove information, and gains would no longer fall.

    Raises:
      UserError: it is no such number.
    """
    try:
        value = float(threshold)
    except (TypeError, ValueError):
        value = np.nan
    if not 0.0 <= value <= 1.0:
        raise UserError(key="graph.threshold", value=threshold, allowed="auto or a number from 0 to 1")
    return value


def _pack(names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    parts = [name.encode("utf-8", "surrogatepass") for name in names]
    offsets = np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64)
    return np.frombuffer(b"".join(parts), np.uint8), offsets


def _unpack(text: np.ndarray, offsets: np.ndarray) -> tuple[str, ...]:
    blob = text.tobytes()
    return tuple(blob[a:b].decode("utf-8", "surrogatepass") for a, b in pairwise(offsets))
