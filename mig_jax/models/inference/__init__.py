"""Models applied to texts.

- common: ``fingerprint`` (what decides a result; no Flax), ``loaded`` (weights on devices, batches in flight),
  ``packing`` (the plan of batches).
- embeddings: ``embed``, ``pooling``.
- decoders: ``language_model`` is their common input; ``generate`` (``decoding`` on the device), ``logprobs``,
  ``next_token``.
- ``car_model``: scores of CaR. ``flops``: the work of a batch.
"""
