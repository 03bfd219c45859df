"""An OpenAI-compatible server around one engine. `app.py` puts it together, `run.py` runs it (`neo serve`).

A request comes in through `door.py` (id, key, rate, queue, body size) and is checked by `protocol.py`; its pictures are
opened by `media.py`, and `answering.py` hands it to the engine.
"""
