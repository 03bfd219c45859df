"""What tests of the engine share."""

from neo.inference.cache import cache_dtype
from neo.inference.engine import Engine
from neo.inference.generation import Generation, Request
from neo.model.neo import NeoForConditionalGeneration
from neo.model.sizes import cache_bytes_per_token
from neo.processing.processor import Encoded, NeoProcessor

PROMPTS = 12
MOST_TOKENS = 24


def engine_of(model: NeoForConditionalGeneration, processor: NeoProcessor, tokens: int = 100_000, **options) -> Engine:
    memory = tokens * cache_bytes_per_token(model.config.text_config, cache_dtype([model.device], model.dtype))
    return Engine(model, processor, cache_memory=memory, **options)


def ask(engine: Engine, prompt: Encoded, tokens: int = MOST_TOKENS, **options) -> Generation:
    stop = frozenset({engine.processor.ids.im_end})
    return engine.submit(Request(prompt, tokens, stop_ids=stop, **options))


def assert_nothing_leaked(engine: Engine) -> None:
    assert not engine.running
    assert not engine.waiting
    assert not engine.memory.live
    kept = list(engine.memory.kept.values())
    assert sum(store.capacity for store in kept) == engine.memory.used <= engine.memory.capacity
