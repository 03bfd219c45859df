"""Asking a NEO: `chat.py` is what `neo.load_model` returns.

`names.py` finds the model's folder, `decoding.py` is the generation loop, `sampling.py` chooses each token.
"""
