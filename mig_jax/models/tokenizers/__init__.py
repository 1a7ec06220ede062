"""Strings <-> token ids.

Read ``text_tokenizer`` first: the tokenizer of a checkpoint, made from tokenizer.json, from SentencePiece's
tokenizer.model (``sentencepiece_file``), from a GGUF file (``gguf_tokenizer``) or by transformers.

- ``tokens``: many texts as one flat array of ids, which is the input of batches.
- ``chat``: a list of messages as the text that a model was tuned on.
- ``digest``: the fingerprint of a tokenizer.
"""
