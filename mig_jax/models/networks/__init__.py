"""Networks in Flax NNX, how they are filled with weights, and where the weights are placed.

Read ``layers`` first (it defines the letters of shapes), then ``decoder`` or ``encoder``.

- ``decoder``: Llama, Mistral, Qwen, SmolLM2. ``encoder``, with ``bert``, ``xlm_roberta`` and ``mpnet``. ``car_scorer``:
  the scorer of CaR, an encoder with a regression head.
- ``families``: the table of networks by ``model_type``.
- ``weights``: fills a network by its weight map, and writes it back.
- ``sharding``: one table from the names of axes to the axes of the mesh.
"""
