"""Other ways to the greedy's picks, to measure the engine against: a lazy heap, a naive scan, a dense matrix."""

from experiments.peers.heap import have_numba, heap_numba
from experiments.peers.result import PeerResult
from experiments.peers.scans import dense_jax, dense_numpy, scan_jax

__all__ = ["PeerResult", "dense_jax", "dense_numpy", "have_numba", "heap_numba", "scan_jax"]
