"""Language models in Flax NNX, from a checkpoint's files to embeddings, answers and log-probabilities.

Four packages, in the order of the data; each imports only from those before it:

- ``checkpoints``: files of a model, and what its config.json says. No JAX, no Flax.
- ``tokenizers``: strings <-> token ids, chat templates.
- ``networks``: Flax modules, their weight maps, and the placement of weights on devices.
- ``inference``: batches of texts through a network.

``config`` holds the settings ``embedder.*`` and ``model.*``; ``configured`` makes specs and meshes from them.
"""
