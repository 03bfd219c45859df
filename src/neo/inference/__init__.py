"""Asking a NEO: `chat.py` is what `neo.load_model`, in `loading.py`, returns; `quantize.py` is weights in fewer bits.

It stands on the engine: `engine.py` decides what is computed in each step, `forward.py` computes it for many requests
at once, `cache.py` holds keys and values, `generation.py` is a request and its answer, `sequence.py` its way through
the engine, `sampling.py` chooses each token, `constraint.py` holds an answer to a form, `text.py` makes text of it,
`messages.py` makes conversations of questions. `describe.py` tells what a model is and costs.
"""
