"""The files of a model: where they are, and what they contain. No JAX and no Flax is imported here.

Read ``checkpoint`` first: ``ModelSpec`` describes a model, ``find_checkpoint`` returns its checked files.

- finding: ``checkpoint``; ``hub`` downloads; ``digests`` remembers the sha256 of large files.
- config.json: ``architectures`` is the table of readers; ``encoder_config``, ``decoder_config``, ``config_fields``.
- tensors: ``tensors`` reads .safetensors; ``gguf`` and ``gguf_header`` read llama.cpp's files.
- ``sentence_folder``: settings of sentence-transformers.
"""
