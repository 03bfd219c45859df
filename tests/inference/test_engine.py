"""The engine against transformers' generate on the plain network, whatever else it is doing at the time."""

import gc
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
import torch
from engines import MOST_TOKENS, PROMPTS, ask, assert_nothing_leaked, engine_of
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_checkpoint import make_checkpoint

from neo.inference import engine as module
from neo.inference.cache import GROWTH, Store
from neo.inference.engine import Engine
from neo.inference.forward import forward
from neo.inference.generation import Constraint, Generation, Piece, Request
from neo.inference.sampling import Sampling
from neo.inference.sequence import TokenSequence
from neo.model.neo import NeoForConditionalGeneration
from neo.processing.processor import NeoProcessor


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_greedy_answers_in_any_schedule_are_those_alone(model, processor, prompts, expected, seed: int):
    """Random requests that come, go and are cancelled, cache scarce or not, reused or not, prompts chunked or not."""
    draw = random.Random(seed)
    engine = engine_of(
        model,
        processor,
        draw.choice([600, 1500, 100_000]),
        max_batch=draw.randint(1, 16),
        chunk_tokens=draw.choice([1, 7, 64, 512]),
        reuse=draw.random() < 0.6,
    )
    to_come = [(draw.randrange(PROMPTS), draw.randint(1, 6)) for _ in range(draw.randint(1, 16))]
    under_way: list[tuple[Generation, int, int, bool]] = []
    while to_come or under_way:
        while to_come and draw.random() < 0.5:
            number, tokens = to_come.pop()
            under_way.append((ask(engine, prompts[number], tokens), number, tokens, draw.random() < 0.15))
        engine.step()
        for entry in list(under_way):
            generation, number, tokens, fickle = entry
            if fickle and draw.random() < 0.3:
                generation.cancel()
            if generation.finish_reason is None:
                continue
            under_way.remove(entry)
            right = expected[number][:tokens]
            if generation.finish_reason == "cancelled":
                assert generation.tokens == right[: len(generation.tokens)]
            else:
                assert generation.tokens == right
                assert generation.finish_reason == ("length" if len(right) == tokens else "stop")
    assert_nothing_leaked(engine)


def test_scarce_memory_preempts_and_answers_all_the_same(model, processor, prompts, expected):
    engine = engine_of(model, processor, 3 * GROWTH, reuse=False)
    generations = [ask(engine, prompts[i]) for i in range(4)]
    assert [generation.result().tokens for generation in generations] == [tuple(expected[i]) for i in range(4)]
    tight = engine_of(model, processor, 4 * GROWTH, reuse=False)
    short = processor.encode([{"role": "user", "content": "What"}], add_generation_prompt=True)
    alone = engine_of(model, processor).submit(Request(short, 2 * GROWTH + 20)).result().tokens
    both = [tight.submit(Request(short, 2 * GROWTH + 20)) for _ in range(2)]
    assert [one.result().tokens for one in both] == [alone, alone]
    assert tight.preemptions > 0


def test_running_answers_go_on_while_a_long_prompt_is_computed(model, processor, prompts):
    engine = engine_of(model, processor, chunk_tokens=8, reuse=False)
    running = engine.submit(Request(prompts[0], 60))
    while not running.tokens:
        engine.step()
    long = processor.encode([{"role": "user", "content": "circle " * 40}], add_generation_prompt=True)
    late, said = engine.submit(Request(long, 1)), [len(running.tokens)]
    while not late.tokens:
        engine.step()
        said.append(len(running.tokens))
    chunks = -(-len(long.input_ids) // 8)
    assert chunks > 5
    assert said == list(range(said[0], said[0] + chunks + 1))


def test_a_short_prompt_is_not_held_up_by_a_long_one(model, processor):
    engine = engine_of(model, processor, chunk_tokens=32)
    long, short = (
        processor.encode([{"role": "user", "content": text}], add_generation_prompt=True)
        for text in ("circle " * 200, "What color is it?")
    )
    late, waits, early = (engine.submit(Request(prompt, 1)) for prompt in (long, long, short))
    for _ in range(1 + len(short.input_ids) // 16):
        engine.step()
    assert early.tokens
    assert len(engine.waiting) == 1  # for the beginning that is the same
    chunks = 1
    while not late.tokens:
        engine.step()
        chunks += 1
    assert chunks <= len(long.input_ids) / 32 + 2
    assert waits.result().reused_tokens > len(long.input_ids) / 2


def test_a_picture_is_encoded_once_until_others_have_been_seen_since(model, processor, monkeypatch):
    seen, encode = [], model.model.get_image_features

    def counted(pixels, grid):
        seen.append(round(float(pixels.mean()), 3))
        return encode(pixels, grid)

    monkeypatch.setattr(model.model, "get_image_features", counted)
    engine = engine_of(model, processor)
    red, green, blue = (Image.new("RGB", (64, 64), color) for color in ("red", "green", "blue"))

    def show(image: Image.Image, text: str) -> int:
        prompt = processor.encode([{"role": "user", "content": text, "image": image}], add_generation_prompt=True)
        ask(engine, prompt, 1).result()
        engine.memory.forget()
        return len(seen)

    assert [show(red, "What?"), show(red, "Which color is it?")] == [1, 1]
    engine._feature_room = 2 * next(iter(engine._features.values())).nbytes
    assert [show(one, "What?") for one in (green, red, blue, red, green)] == [2, 2, 3, 3, 4]


def test_a_second_turn_computes_only_what_is_new(model, processor, prompts):
    engine = engine_of(model, processor)
    prompt = next(prompt for prompt in prompts if len(prompt.image_grid_hw) == 2)
    first = ask(engine, prompt).result()
    assert first.reused_tokens == 0
    again = ask(engine, prompt).result()
    assert again.reused_tokens == len(prompt.input_ids) - 1
    assert again.tokens == first.tokens


def test_what_is_found_again_behind_a_preemption_does_not_count_as_reused(model, processor, prompts, expected):
    engine = engine_of(model, processor)
    ask(engine, prompts[0]).result()
    generation = ask(engine, prompts[0])
    engine.step()
    engine.memory.forget()
    engine._preempt(engine.running[0])
    answer = generation.result()
    assert answer.reused_tokens == len(prompts[0].input_ids) - 1
    assert answer.tokens == tuple(expected[0])


def test_positions_are_computed_once(model, processor, prompts, monkeypatch):
    prompt = next(prompt for prompt in prompts if len(prompt.image_grid_hw) == 2)
    steps = int(model.get_positions(prompt.input_ids[None], prompt.image_grid_hw)[0].max()) + 1
    engine, calls = engine_of(model, processor), []
    assert engine.room_behind(prompt) == model.config.text_config.max_position_embeddings - steps

    def counted(*inputs):
        calls.append(inputs)
        return type(model).get_positions(model, *inputs)

    monkeypatch.setattr(model, "get_positions", counted)
    request = Request(prompt, engine.room_behind(prompt))
    engine.check(request)
    generation = engine.submit(request)
    engine.step()
    generation.cancel()
    assert len(calls) == 1


def test_another_picture_of_the_same_size_is_not_reused(model, processor):
    noise = np.random.default_rng(1)
    images = [Image.fromarray(noise.integers(0, 255, (64, 64, 3), dtype=np.uint8)) for _ in range(2)]
    a, b = (
        processor.encode([{"role": "user", "content": "What?", "image": image}], add_generation_prompt=True)
        for image in images
    )
    assert torch.equal(a.input_ids, b.input_ids)
    engine = engine_of(model, processor)
    ask(engine, a).result()
    second = ask(engine, b).result()
    start = b.input_ids.tolist().index(processor.ids.image)
    assert second.reused_tokens == start
    assert second.tokens == ask(engine_of(model, processor), b).result().tokens


def test_a_beginning_under_way_is_waited_for(model, processor, prompts):
    engine = engine_of(model, processor)
    prompt = max(prompts, key=lambda prompt: len(prompt.input_ids))
    generations = [ask(engine, prompt, sampling=Sampling(1.0, seed=seed)) for seed in range(3)]
    reused = [generation.result().reused_tokens for generation in generations]
    assert reused == [0, len(prompt.input_ids) - 1, len(prompt.input_ids) - 1]


def test_a_seed_repeats_in_any_company(model, processor, prompts):
    options = {"sampling": Sampling(1.0, top_p=0.9, seed=3)}
    alone = ask(engine_of(model, processor), prompts[1], **options).result().tokens
    engine = engine_of(model, processor, chunk_tokens=16)
    crowd = [ask(engine, prompt, sampling=Sampling(1.0)) for prompt in prompts]
    assert ask(engine, prompts[1], **options).result().tokens == alone
    assert all(one.result().finish_reason for one in crowd)


@pytest.mark.parametrize("reuse", [True, False])
def test_several_answers_compute_their_prompt_once(model, processor, prompts, expected, reuse: bool, monkeypatch):
    number = max(range(PROMPTS), key=lambda i: len(prompts[i].input_ids))
    prompt, prefilled = prompts[number], 0

    def counted(model, spans):
        nonlocal prefilled
        prefilled += sum(len(span.ids) for span in spans if span.start < len(prompt.input_ids))
        return forward(model, spans)

    monkeypatch.setattr(module, "forward", counted)
    engine = engine_of(model, processor, chunk_tokens=64, max_batch=3, reuse=reuse)
    ends = frozenset({processor.ids.im_end})
    generations = engine.submit_several(Request(prompt, 6, stop_ids=ends), 5)
    assert [list(one.result().tokens) for one in generations] == [expected[number][:6]] * 5
    assert prefilled == len(prompt.input_ids) + 4  # the last token for each answer
    assert_nothing_leaked(engine)


def test_several_answers_with_a_seed_repeat_in_any_company(model, processor, prompts):
    request = Request(prompts[1], 12, Sampling(1.0, top_p=0.9, seed=3))
    alone = [one.result().tokens for one in engine_of(model, processor).submit_several(request, 4)]
    assert len(set(alone)) == 4
    assert alone[0] == engine_of(model, processor).submit(request).result().tokens
    engine = engine_of(model, processor, 1200, chunk_tokens=16, max_batch=7)
    crowd = [ask(engine, prompt, sampling=Sampling(1.0)) for prompt in prompts]
    several = engine.submit_several(request, 4)
    engine.step()
    several[0].cancel()
    assert [one.result().tokens for one in several[1:]] == alone[1:]
    assert all(one.result().finish_reason for one in crowd)
    assert_nothing_leaked(engine)


def test_logprobs_are_those_of_the_network(model, processor, prompts):
    prompt = prompts[0]
    answer = ask(engine_of(model, processor), prompt, 6, logprobs=3).result()
    ids = torch.cat([prompt.input_ids, torch.tensor(answer.tokens)])[None]
    pixels = prompt.pixel_values if len(prompt.image_grid_hw) else None
    with torch.inference_mode():
        logits = model(input_ids=ids, pixel_values=pixels, image_grid_hw=prompt.image_grid_hw).logits[0]
    right = logits.log_softmax(-1)[len(prompt.input_ids) - 1 : -1]
    for place, said in enumerate(answer.logprobs):
        assert said.logprob == pytest.approx(float(right[place, answer.tokens[place]]), abs=1e-4)  # measured: 6e-6
        assert [token for token, _ in said.top] == right[place].topk(3).indices.tolist()


def test_stop_strings(model, processor, prompts):
    engine = engine_of(model, processor)
    whole = ask(engine, prompts[2]).result().text
    stop = whole[len(whole) // 2 : len(whole) // 2 + 3]
    generation = ask(engine, prompts[2], stop=(stop,))
    pieces = "".join(piece.text for piece in generation)
    answer = generation.completion()
    assert pieces == answer.text == whole[: whole.index(stop)]
    assert answer.finish_reason == "stop"


def test_timeout_and_cancel(model, processor, prompts):
    engine = engine_of(model, processor)
    assert ask(engine, prompts[0], timeout=1e-9).result().finish_reason == "timeout"
    generation = ask(engine, prompts[0])
    for _ in generation:
        break
    engine.step()
    assert generation.finish_reason == "cancelled"
    assert_nothing_leaked(engine)


class Broken:
    """A constraint that fails at the third token."""

    def __init__(self) -> None:
        self.calls = 0

    def mask(self, logits_V: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls == 3:
            raise RuntimeError("broken")
        return logits_V

    def accept(self, token: int) -> bool:
        return False


def test_an_error_ends_its_request_alone(model, processor, prompts, expected, monkeypatch):
    engine = engine_of(model, processor)
    constraint: type[Constraint] = Broken
    bad, good = ask(engine, prompts[1], constraint=constraint), ask(engine, prompts[3])
    with pytest.raises(RuntimeError, match="broken"):
        bad.result()
    assert len(bad.tokens) == 2
    assert good.result().tokens == tuple(expected[3])

    encode = model.model.get_image_features
    monkeypatch.setattr(model.model, "get_image_features", lambda pixels, grid: encode(pixels[:-4], grid))
    with_picture = next(i for i, prompt in enumerate(prompts) if len(prompt.image_grid_hw))
    without = next(i for i, prompt in enumerate(prompts) if not len(prompt.image_grid_hw))
    engine = engine_of(model, processor)
    bad, good = ask(engine, prompts[with_picture]), ask(engine, prompts[without])
    assert good.result().tokens == tuple(expected[without])
    with pytest.raises((RuntimeError, ValueError)):
        bad.result()
    assert_nothing_leaked(engine)


@pytest.mark.parametrize("own_thread", [True, False])
@pytest.mark.parametrize("place", [1, 2, MOST_TOKENS + 1])
def test_a_listener_that_fails_ends_its_request_alone(
    model, processor, prompts, expected, place: int, own_thread: bool
):
    engine = engine_of(model, processor)
    calls = []

    def listen() -> None:
        calls.append(1)
        if len(calls) == place:
            raise OSError("gone")

    bad, good = engine.submit(Request(prompts[1], MOST_TOKENS)), ask(engine, prompts[3])
    bad.listener = listen
    if own_thread:
        engine.start()
    assert good.result().tokens == tuple(expected[3])
    with pytest.raises(OSError, match="gone"):
        bad.result()
    assert len(calls) == place
    assert engine.alive
    assert ask(engine, prompts[2]).result().tokens == tuple(expected[2])
    engine.close()
    assert_nothing_leaked(engine)


@pytest.mark.parametrize("own_thread", [True, False])
def test_a_listener_that_waits_for_the_engine_is_refused(model, processor, prompts, expected, own_thread: bool):
    engine = engine_of(model, processor)
    closing, waiting, good = (ask(engine, prompts[number]) for number in (1, 2, 3))
    closing.listener, waiting.listener = engine.close, ask(engine, prompts[4]).result
    if own_thread:
        engine.start()
    assert good.result().tokens == tuple(expected[3])
    for generation in (closing, waiting):
        with pytest.raises(RuntimeError, match="do so from another thread"):
            generation.result()
    assert engine.alive
    engine.close()
    assert not engine.alive
    assert_nothing_leaked(engine)


def test_what_can_never_fit_is_refused_at_once(model, processor, prompts):
    engine = engine_of(model, processor, GROWTH)
    with pytest.raises(ValueError, match=f"takes up to .* tokens but the cache holds {GROWTH}"):
        ask(engine, prompts[0], 2 * GROWTH)
    with pytest.raises(ValueError, match="context is 2048"):
        ask(engine_of(model, processor), prompts[0], 2048)
    with pytest.raises(ValueError, match="cache_memory=10 bytes is too little"):
        Engine(model, processor, cache_memory=10)
    with pytest.raises(ValueError, match="max_new_tokens=0 must be"):
        ask(engine_of(model, processor), prompts[0], 0)
    with pytest.raises(ValueError, match="max_batch=0"):
        Engine(model, processor, max_batch=0)


def test_as_much_as_there_is_room_for_is_answered(model, processor, prompts):
    """Also where the cache holds a part of one more piece by which stores grow."""
    engine = engine_of(model, processor, 3 * GROWTH - 1)
    assert engine.memory.capacity == 2 * GROWTH
    room = engine.room_behind(prompts[0])
    assert engine.submit(Request(prompts[0], room)).result().finish_reason == "length"
    with pytest.raises(ValueError, match=f"takes up to {2 * GROWTH + 1} tokens but the cache holds {2 * GROWTH}"):
        ask(engine, prompts[0], room + 1)


def test_a_thread_of_its_own(model, processor, prompts, expected):
    with engine_of(model, processor).start() as engine:
        generations = [ask(engine, prompt) for prompt in prompts]
        assert [list(one.result().tokens) for one in generations] == expected
        assert engine.alive
        thread = engine._thread
        unfinished = ask(engine, prompts[0])
    assert thread is not None
    assert not thread.is_alive()
    assert not engine.alive
    if unfinished.error is not None:
        with pytest.raises(RuntimeError, match="closed"):
            unfinished.result()
    with pytest.raises(RuntimeError, match="closed"):
        ask(engine, prompts[0])


def test_its_thread_computes_with_as_many_as_there_were(model, processor, prompts):
    """Also where others compute with fewer from then on, as those do that open a server's pictures."""
    before, seen = torch.get_num_threads(), []
    try:
        torch.set_num_threads(before + 1)
        with engine_of(model, processor).start() as engine, ThreadPoolExecutor() as others:
            time.sleep(0.2)  # until it waits for work; what it must not do would not show otherwise
            others.submit(torch.set_num_threads, 1).result()
            generation = ask(engine, prompts[0])
            generation.listener = lambda: seen.append(torch.get_num_threads())
            generation.result()
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {before + 1}


def test_ten_thousand_requests_leave_memory_where_it_was(tmp_path):
    """Of a model of one layer: with pictures and without, cancelled, failing, too late, in several answers."""
    folder = make_checkpoint(tmp_path, num_hidden_layers=1, extra_num_layers=0)
    model = NeoForConditionalGeneration.from_pretrained(folder).eval()
    processor, draw = NeoProcessor.from_pretrained(folder), random.Random(0)
    engine = engine_of(model, processor, 24 * GROWTH, max_batch=24)
    asked = [
        processor.encode([{"role": "user", "content": word, **shown}], add_generation_prompt=True)
        for word, shown in (("a", {}), ("b", {}), ("c", {"image": Image.new("RGB", (64, 64))}))
    ]
    kinds = (Generation, TokenSequence, Store, Piece)

    def answered(count: int) -> Counter:
        ends: Counter = Counter()
        for _ in range(count // 25):
            options = draw.choices([{}, {"constraint": Broken}, {"timeout": 1e-9}], [8, 1, 1], k=20)
            generations = [ask(engine, draw.choice(asked), draw.randint(1, 3), **one) for one in options]
            generations += engine.submit_several(Request(draw.choice(asked), 2, Sampling(1.0)), 5)
            engine.step()
            draw.choice(generations).cancel()
            while engine.step():
                pass
            ends.update(one.finish_reason for one in generations)
        assert_nothing_leaked(engine)
        return ends

    def alive() -> Counter:
        engine.memory.forget()
        gc.collect()
        return Counter(type(one) for one in gc.get_objects() if type(one) in kinds)

    answered(1000)
    objects, resident = alive(), psutil.Process().memory_info().rss
    ends = answered(9000)
    assert sum(ends.values()) == 9000
    assert min(ends[kind] for kind in ("length", "error", "timeout", "cancelled")) > 50
    assert alive() == objects
    assert psutil.Process().memory_info().rss - resident < 2**25  # a single store is 49 kB; measured: 0.3 MB
    assert len(engine._features) == 1
