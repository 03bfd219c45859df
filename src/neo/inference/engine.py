"""The engine: many requests at once on one model, each answered as if it were alone.

Requests join and leave between steps. A step is one forward for all of them: one new token for those that are
answering, and up to `chunk_tokens` of the prompts of those that have just come, so that a long prompt does not hold up
running answers. Prompts are cut only outside pictures, whose tokens see one another. Where a prompt begins like
an earlier sequence, its beginning comes from the cache (`neo.inference.cache`).

engine = Engine(model, processor)
generation = engine.submit(Request(prompt, max_new_tokens=64))
for piece in generation: ...            # or generation.result()

Whoever waits for an answer drives the engine; `start()` gives it a thread of its own instead, as a server wants.
"""

import logging
import os
import threading
import traceback
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Self

import torch
from torch import Tensor

from neo.inference.cache import GROWTH, CacheMemory, OutOfMemory, cache_dtype, shared_beginning
from neo.inference.forward import Span, forward, layer_devices
from neo.inference.generation import Generation, Request, TokenLogprob, TooLong
from neo.inference.sequence import TokenSequence, lay_out
from neo.model.device import compute_with, free_memory
from neo.model.neo import NeoForConditionalGeneration
from neo.model.sizes import cache_bytes_per_token
from neo.processing.processor import Encoded, NeoProcessor

logger = logging.getLogger(__name__)

CACHE_SHARE = 0.4
"""Of the free memory, what the cache may take unless said otherwise."""
FEATURE_SHARE = 0.05
"""Of the cache's memory, what encoded pictures may take beside it."""
MOST_ANSWERS = 128
"""Answers to one prompt at the most."""
LOOK_AHEAD = 4
"""Waiting requests that are looked at in a step, for each that can be answered at the same time."""
WORTH_WAITING = 64
"""A request waits while another computes a beginning that both share, if it is longer than what is known by so many."""


class Engine:
    """Answers requests on one model; see the module."""

    def __init__(
        self,
        model: NeoForConditionalGeneration,
        processor: NeoProcessor,
        *,
        cache_memory: int | None = None,
        max_batch: int = 16,
        chunk_tokens: int = 512,
        reuse: bool = True,
    ) -> None:
        """Prepare to answer; memory is taken as requests come.

        Args:
            model: in evaluation mode, on its device.
            processor: its processor.
            cache_memory: bytes for keys and values; by default 40 % of what is free.
            max_batch: sequences answered at the same time; others wait.
            chunk_tokens: tokens of prompts computed in one step, a picture always whole.
            reuse: keep what was computed for later requests with the same beginning.

        Raises:
            ValueError: a number out of range, or the cache would not hold a single sequence.
        """
        for name, value in (("max_batch", max_batch), ("chunk_tokens", chunk_tokens)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value!r} must be a whole number of at least 1")
        text = model.config.text_config
        devices = layer_devices(model.model.language_model)
        if cache_memory is None:
            cache_memory = int(CACHE_SHARE * _free_for_all(devices))
        dtype = cache_dtype(devices, model.dtype)
        if cache_memory < (least := GROWTH * cache_bytes_per_token(text, dtype)):
            raise ValueError(f"cache_memory={cache_memory} bytes is too little for this model: at least {least}")
        self.model, self.processor = model, processor
        self.max_batch, self.chunk_tokens = max_batch, chunk_tokens
        self.memory = CacheMemory(text, dtype, devices, cache_memory, reuse)
        self.waiting: deque[TokenSequence] = deque()
        self.running: list[TokenSequence] = []
        self.preemptions = 0
        """Times a sequence gave its memory up to others and began anew."""
        self._features: OrderedDict[int, Tensor] = OrderedDict()
        self._feature_room = int(FEATURE_SHARE * cache_memory) if reuse else 0
        self._secret = os.urandom(16)
        self._stepping = threading.Lock()
        self._inside: int | None = None
        """The thread that is in a step."""
        self._submitting = threading.Lock()
        self._work = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False

    # --- for those who ask ---

    def submit(self, request: Request) -> Generation:
        """Take a request; its answer comes through what is returned.

        Raises:
            ValueError: it could never be answered: longer than the model's context or than the whole cache.
            RuntimeError: the engine is closed.
        """
        return self.submit_several(request, 1)[0]

    def submit_several(self, request: Request, n: int) -> list[Generation]:
        """Take a request for n answers, whose prompt is computed once; the first is that of `submit`.

        Each has random numbers of its own, see `Sampling.numbered`, and may be cancelled by itself.

        Raises:
            ValueError, RuntimeError: as `submit`; n is out of range.
        """
        if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= MOST_ANSWERS:
            raise ValueError(f"n={n!r} must be a whole number from 1 to {MOST_ANSWERS}")
        prompt = request.prompt
        positions_3L = self.model.get_positions(prompt.input_ids[None], prompt.image_grid_hw)[:, 0]
        self.check(request)
        layout = lay_out(prompt, positions_3L, self.processor.ids.image, self._secret)
        numbered = [replace(request, sampling=request.sampling.numbered(number)) for number in range(1, n)]
        generations = [Generation(one, self.processor.tokenizer, self._wait) for one in (request, *numbered)]
        sequences = [TokenSequence(generation, layout) for generation in generations]
        with self._submitting:
            if self._closed:
                raise RuntimeError("the engine is closed")
            self.waiting += sequences
        self._work.set()
        return generations

    def room_behind(self, prompt: Encoded) -> int:
        """Tokens that can follow a prompt, by the model's context and by the cache; below 1 where it is too long."""
        context = self.model.config.text_config.max_position_embeddings - self._steps(prompt)
        return min(context, self.memory.capacity - len(prompt.input_ids))

    def check(self, request: Request) -> None:
        """Refuse what could never be answered.

        Raises:
            ValueError: it asks for no token.
            TooLong: it is longer than the model's context or than the whole cache.
        """
        if request.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={request.max_new_tokens} must be a whole number of at least 1")
        steps, context = self._steps(request.prompt), self.model.config.text_config.max_position_embeddings
        if (needed := steps + request.max_new_tokens) > context:
            raise TooLong(
                f"the conversation takes {steps} steps, with the answer up to {needed}, but the model's "
                f"context is {context}: shorten the text or ask for less"
            )
        tokens = len(request.prompt.input_ids) + request.max_new_tokens
        if not self.memory.fits(tokens):
            raise TooLong(
                f"the request takes up to {tokens} tokens but the cache holds {self.memory.capacity}: "
                "ask for less, or give the engine more cache_memory"
            )

    def step(self) -> bool:
        """One forward for all; whether there is more to do."""
        with self._alone():
            self._step()
            return bool(self.waiting or self.running)

    def start(self) -> Self:
        """Work in a thread of its own from now on, on CPU with as many threads of arithmetic as torch has now."""
        if self._thread is None:
            threads = (torch.get_num_threads(),)
            self._thread = threading.Thread(target=self._run, args=threads, name="neo-engine", daemon=True)
            self._thread.start()
        return self

    @property
    def alive(self) -> bool:
        """Whether requests are taken and answered."""
        return not self._closed and (self._thread is None or self._thread.is_alive())

    def close(self) -> None:
        """End the thread and all requests; further ones are refused.

        Raises:
            RuntimeError: a listener calls it from inside the engine.
        """
        self._refuse_inside()
        with self._submitting:
            self._closed = True
        self._work.set()
        if self._thread is not None:
            self._thread.join()
        with self._alone():
            self._end_all(RuntimeError("the engine was closed before the answer was complete"))
            self.memory.forget()
            self._features.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- steps ---

    def _step(self) -> None:
        self._drop_ended()
        self._admit()
        planned = self._plan()
        for sequence, logits_V, error in self._compute(planned):
            if error is None and not sequence.pending:
                error = self._answer(sequence, logits_V)
            if error is not None:
                sequence.generation.end("error", error)
        self._drop_ended()

    def _drop_ended(self) -> None:
        """Let go of sequences that ended, were cancelled or took too long."""
        for sequence in [*self.running, *self.waiting]:
            generation = sequence.generation
            if generation.finish_reason is None and (generation.cancelled or generation.overdue):
                generation.end("cancelled" if generation.cancelled else "timeout")
        for sequence in [one for one in self.running if one.generation.finish_reason is not None]:
            self.running.remove(sequence)
            self._release(sequence, keep=sequence.generation.error is None)
        for sequence in [one for one in list(self.waiting) if one.generation.finish_reason is not None]:
            self.waiting.remove(sequence)

    def _admit(self) -> None:
        """Let waiting requests join while there is room, in their order, but for those that gain by waiting."""
        for sequence in list(islice(self.waiting, LOOK_AHEAD * self.max_batch)):
            if len(self.running) == self.max_batch:
                return
            if self._soon_known(sequence):
                if self.memory.reuse:
                    continue
                return  # another answer to a running prompt, whose store is there only while that runs
            room = len(sequence.ids) + min(sequence.request.max_new_tokens, GROWTH)
            try:
                twins = [one.store for one in self.running if one.layout is sequence.layout and one.store]
                store = self.memory.open(sequence.contents(), min(room, sequence.most), twins)
            except OutOfMemory as error:
                if self.running:  # they will give theirs back
                    return
                self.waiting.remove(sequence)
                sequence.generation.end("error", error)
                continue
            if store is None:
                return
            self.waiting.remove(sequence)
            sequence.store = store
            if not sequence.begun:  # what it finds again behind a preemption it has computed once
                sequence.generation.reused_tokens = min(store.length, sequence.prompt_length)
            sequence.begun = True
            self.running.append(sequence)

    def _soon_known(self, sequence: TokenSequence) -> bool:
        """Whether a running prefill computes a beginning that this request will find in the cache then."""
        prefilling = [one for one in self.running if one.prefilling]
        if any(one.layout is sequence.layout for one in prefilling):  # another answer to the same prompt
            return True
        if not self.memory.reuse:
            return False
        shared = [shared_beginning(one.contents(), sequence.contents()) for one in prefilling]
        return bool(shared) and max(shared) > self.memory.longest_known(sequence.contents()) + WORTH_WAITING

    def _plan(self) -> list[tuple[TokenSequence, int]]:
        """Which sequences go on in this step, and up to which of their tokens.

        Of the prompts the shortest come first, so that a long one does not hold them up, but up to half of what may be
        computed is for the one that has waited longest.
        """
        planned = [(one, one.computed + 1) for one in self.running if one.pending == 1]
        prompts = [one for one in self.running if one.pending > 1]
        left = self.chunk_tokens
        reserved = min(prompts[0].pending, (left + 1) // 2) if prompts else 0
        for sequence in sorted(prompts, key=lambda one: one.pending):
            longest_waiting = sequence is prompts[0]
            most = max(left, reserved) if longest_waiting else left - reserved
            if most > 0:
                planned.append((sequence, stop := sequence.chunk_end(most)))
                left -= stop - sequence.computed
            reserved = 0 if longest_waiting else reserved
        planned = [(sequence, stop) for sequence, stop in planned if self._make_room(sequence, stop)]
        return [(sequence, stop) for sequence, stop in planned if sequence.store is not None]

    def _make_room(self, sequence: TokenSequence, stop: int) -> bool:
        """Room for a sequence's next tokens, if need be by sending the youngest ones back to wait."""
        try:
            while sequence.store is not None and not self.memory.grow(sequence.store, stop):
                self._preempt(self.running[-1])
        except OutOfMemory:  # less than the budget: others keep what they have
            self._preempt(sequence)
        return sequence.store is not None

    def _preempt(self, sequence: TokenSequence) -> None:
        logger.info("out of cache memory: a sequence of %d tokens waits and begins anew", len(sequence.ids))
        self.preemptions += 1
        self.running.remove(sequence)
        self._release(sequence, keep=False)
        self.waiting.appendleft(sequence)

    def _release(self, sequence: TokenSequence, keep: bool) -> None:
        if sequence.store is not None:
            self.memory.close(sequence.store, keep)
            sequence.store = None

    def _compute(
        self, planned: Sequence[tuple[TokenSequence, int]]
    ) -> list[tuple[TokenSequence, Tensor, Exception | None]]:
        """The logits behind each sequence's next tokens; where the forward fails, of which sequence it is."""
        nothing = torch.empty(0)
        try:
            spans = [self._span(sequence, stop) for sequence, stop in planned]
            logits = forward(self.model, spans) if spans else nothing
            return [(sequence, row, None) for (sequence, _), row in zip(planned, logits, strict=True)]
        except Exception as error:  # noqa: BLE001 - raised to whoever asked
            failed = error
        if len(planned) == 1:
            return [(planned[0][0], nothing, failed)]
        traceback.clear_frames(failed.__traceback__)  # or memory that was too little stays taken
        del failed
        return [result for one in planned for result in self._compute([one])]

    def _span(self, sequence: TokenSequence, stop: int) -> Span:
        assert sequence.store is not None
        start = sequence.computed
        numbers = [i for i, one in enumerate(sequence.pictures) if start <= one.start < stop]
        return Span(
            sequence.store,
            sequence.ids[start:stop],
            sequence.contents(start, stop),
            sequence.positions(start, stop),
            [sequence.pictures[i] for i in numbers],
            [self._encoded(sequence, i) for i in numbers],
        )

    def _encoded(self, sequence: TokenSequence, number: int) -> Tensor:
        """The vectors of a picture, (tokens, C): from the last pictures' if it is among them."""
        content = sequence.pictures[number].content
        if content in self._features:
            self._features.move_to_end(content)
            return self._features[content]
        prompt = sequence.request.prompt
        sizes = prompt.image_grid_hw.prod(-1).tolist()
        start = sum(sizes[:number])
        device = self.memory.devices[0]
        pixels = prompt.pixel_values[start : start + sizes[number]].to(device)
        with torch.inference_mode():
            grid = prompt.image_grid_hw[number : number + 1].to(device)
            features = self.model.model.get_image_features(pixels, grid)
        self._features[content] = features
        while sum(one.nbytes for one in self._features.values()) > self._feature_room:
            self._features.popitem(last=False)
        return features

    def _answer(self, sequence: TokenSequence, logits_V: Tensor) -> Exception | None:
        """Choose a sequence's next token; what went wrong in doing so."""
        generation, request = sequence.generation, sequence.request
        try:
            allowed_V = logits_V if sequence.constraint is None else sequence.constraint.mask(logits_V)
            token = request.sampling.choose(allowed_V, sequence.generator, sequence.ids)
            if token in request.stop_ids:
                generation.end("stop")
                return None
            complete = sequence.constraint is not None and sequence.constraint.accept(token)
            sequence.ids.append(token)
            generation.say(token, None if request.logprobs is None else _logprob(logits_V, token, request.logprobs))
            if generation.finish_reason is None and complete:
                generation.end("stop")
            if generation.finish_reason is None and len(generation.tokens) == request.max_new_tokens:
                generation.end("length")
        except Exception as error:  # noqa: BLE001 - raised to whoever asked
            return error
        return None

    # --- around the steps ---

    def _wait(self, generation: Generation) -> None:
        """Until a request has news: by driving the engine, or while its thread does."""
        self._refuse_inside()
        if self._thread is not None:
            generation.news.wait()
        else:
            with self._alone():
                if not generation.news.is_set() and generation.finish_reason is None:
                    self._step()
        generation.news.clear()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One thread at a time."""
        self._refuse_inside()
        with self._stepping:
            self._inside = threading.get_ident()
            try:
                yield
            finally:
                self._inside = None

    def _refuse_inside(self) -> None:
        if self._inside == threading.get_ident():
            raise RuntimeError(
                "a listener, or what else the engine calls, cannot wait for it or close it: do so from another thread"
            )

    def _run(self, threads: int) -> None:
        try:
            compute_with(threads)
            while not self._closed:
                self._work.wait()
                self._work.clear()
                while not self._closed and self.step():
                    pass
        except BaseException as error:
            logger.exception("the engine has died")
            with self._submitting:
                self._closed = True
            self._end_all(RuntimeError(f"the engine has died: {error}"))
            raise

    def _end_all(self, error: Exception) -> None:
        for sequence in [*self.running, *self.waiting]:
            if sequence.generation.finish_reason is None:
                sequence.generation.end("error", error)
        self._drop_ended()

    def _steps(self, prompt: Encoded) -> int:
        """How much of the model's context a prompt takes, in steps of t: one a word token, one a picture."""
        return int((prompt.input_ids != self.processor.ids.image).sum()) + len(prompt.image_grid_hw)


def _free_for_all(devices: Sequence[torch.device]) -> int:
    """Bytes that caches of layers on these devices could take until the first device is full."""
    return min(free_memory(device) * len(devices) // layers for device, layers in Counter(devices).items())


def _logprob(logits_V: Tensor, token: int, top: int) -> TokenLogprob:
    logprobs_V = logits_V.float().log_softmax(-1)
    values, ids = logprobs_V.topk(min(top, len(logprobs_V)))
    return TokenLogprob(token, float(logprobs_V[token]), tuple(zip(ids.tolist(), values.tolist(), strict=True)))
