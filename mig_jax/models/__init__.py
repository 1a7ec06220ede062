"""Language models under Flax NNX, from a checkpoint's files to embeddings, answers and log-probabilities.

Where to look:

- files: ``checkpoint`` finds them, ``hub`` on Hugging Face too; ``tensors`` reads safetensors, ``gguf`` and
  ``gguf_header`` llama.cpp's files; ``sentence_folder`` reads what sentence-transformers says of pooling.
- text: ``text_tokenizer`` is a checkpoint's tokenizer, from ``sentencepiece_file`` or ``gguf_tokenizer`` where it must
  be, with the template of ``chat``; ``tokens`` makes flat arrays of it.
- networks: ``layers``; ``encoder`` with ``bert``, ``xlm_roberta``, ``mpnet`` and ``car_scorer``; ``decoder`` with
  ``decoder_config``; ``pooling``; ``families`` lists what can be built; ``sharding`` says where the numbers lie.
- weights: ``weights`` fills a network by its map; ``loaded`` is a model on its devices.
- use: ``packing`` puts texts into batches; ``embed`` embeds them; ``language_model`` is what ``logprobs`` and
  ``generate`` take, and ``decoding`` is generate's part on the device.
"""
