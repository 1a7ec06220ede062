"""Supervised fine-tuning as pure functions: conversations -> token ids and masks -> packed batches -> updates.

Read in this order:

- ``conversations``: which tokens of a rendered conversation are trained.
- ``packing``: which rows share an update, and where each row lies in its batches.
- ``loss``: the sum of negative log-likelihoods of the trained tokens, without a logits array of the whole batch.
- ``schedule``, ``optimizer``, ``lora``: the learning rate, AdamW with clipping, low-rank adapters.
- ``step``: one update, accumulated over batches.
"""
