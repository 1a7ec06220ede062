"""A model over many texts, in batches that are planned beforehand, by any number of processes and attempts.

    BatchJob       the texts, their batches, the model; lazily tokenised and loaded
    BatchRun       a job's finished batches (``Shards``) and what this process adds to them
    ProcessGroup   which batches are this process's

``embed`` has one job, ``annotate`` several, one after the other.
"""

from mig_jax.batch.embedding import EmbeddingJob
from mig_jax.batch.job import BatchJob
from mig_jax.batch.process_group import ProcessGroup, already_done, finished_without, process_group
from mig_jax.batch.run import BatchRun, partition_done
from mig_jax.batch.shards import Shards, ShardWriter

__all__ = [
    "BatchJob",
    "BatchRun",
    "EmbeddingJob",
    "ProcessGroup",
    "ShardWriter",
    "Shards",
    "already_done",
    "finished_without",
    "partition_done",
    "process_group",
]
