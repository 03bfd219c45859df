"""Asking a NEO: `chat.py` is what `neo.load_model` returns.

`decoding.py` is the generation loop, `sampling.py` chooses each token, `describe.py` what a model is and costs.
"""
