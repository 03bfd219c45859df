"""From checked requests to answers under way: pictures are opened and prompts prepared in threads, few at a time; the
engine has its own. Pieces come back to the event loop as they are said."""

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar

import torch

from neo.inference.batch import preparing_threads
from neo.inference.cache import OutOfMemory, is_out_of_memory
from neo.inference.chat import ChatModel
from neo.inference.constraint import TooMuchWork
from neo.inference.engine import Engine
from neo.inference.generation import Generation, Piece, Request, TooLong
from neo.processing.processor import Encoded
from neo.processing.tokenizer import PlainText
from neo.serving.errors import ApiError, ending, internal, unavailable
from neo.serving.fetch import Allowance, Fetcher
from neo.serving.media import MediaError, from_data_url, open_all
from neo.serving.metrics import Metrics
from neo.serving.protocol import ChatRequest, CompletionRequest, ImagePart, Message
from neo.serving.settings import Settings
from neo.serving.token_text import TokenText
from neo.serving.visit import Visit

logger = logging.getLogger(__name__)

T = TypeVar("T")
COMPLETION_TOKENS = 16
"""Of /v1/completions unless said otherwise, as at OpenAI."""


class Answering:
    """A model and what stands between it and the routes. Without a model until `use`."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.model: ChatModel | None = None
        self.token_text: TokenText | None = None
        self.draining = False
        """Ending: what runs is finished, nothing new is taken."""
        self.visits: set[Visit] = set()
        """All that are in the server, kept by the door."""
        self._broken_off = False
        self.created = int(time.time())
        self.fetcher = Fetcher(
            settings.media_domains, seconds=settings.media_timeout, redirects=settings.media_redirects
        )
        self._preparing = preparing_threads(settings.decoders)

    def use(self, model: ChatModel) -> None:
        """Answer with this model from now on; its engine gets its thread."""
        model.grammars  # noqa: B018 - takes seconds for a large vocabulary: now rather than at the first request
        model.engine.start()
        self.token_text = TokenText(model.processor.tokenizer)
        self.plain = PlainText(model.processor.tokenizer)
        self.metrics.watch(model, self.settings.name)
        self.model = model

    def ready(self) -> ChatModel:
        """The model.

        Raises:
            ApiError: it is not loaded yet, its engine has died, or the server is ending.
        """
        if self.model is None:
            raise unavailable("the model is still loading", "loading")
        if self.draining:
            raise ending()
        if not self.model.engine.alive:
            raise unavailable("the engine has died; the server is ending", "engine_dead")
        return self.model

    @property
    def context(self) -> int | None:
        """The model's, in tokens; None while it loads."""
        return self.model.model.config.text_config.max_position_embeddings if self.model else None

    def break_off(self) -> None:
        """The time to finish is up: whoever still waits is told that the server is ending."""
        self._broken_off = True
        for visit in self.visits:
            visit.close()

    def close(self) -> None:
        """End the engine and the threads."""
        self._preparing.shutdown(cancel_futures=True)
        if self.model is not None:
            self.model.engine.close()

    # --- questions ---

    async def chat(self, visit: Visit, request: ChatRequest) -> list[Generation]:
        """The `n` answers of a chat request, under way."""
        urls = self.urls(request.model, request.messages)
        return await self.ask(visit, request.messages, urls, request.options(), request.n or 1)

    def urls(self, model: str, messages: list[Message]) -> list[str]:
        """The addresses of pictures in messages, which are checked.

        Raises:
            ApiError: another model is meant, or the messages are too large, or have pictures where none can be.
        """
        self._check_model(model)
        images = [part for message in messages for part in message.parts() if isinstance(part, ImagePart)]
        with self._counting():
            self.check_sizes(len(images), sum(len(text) for text in _texts(messages)))
        if any(isinstance(part, ImagePart) for one in messages if one.role != "user" for part in one.parts()):
            raise ApiError(400, "only a user's message can have pictures", param="messages")
        return [part.image_url.url for part in images]

    async def ask(
        self,
        visit: Visit,
        messages: list[Message],
        pictures: Sequence[str | bytes],
        options: dict[str, Any],
        n: int = 1,
    ) -> list[Generation]:
        """Answers to messages whose pictures are given as addresses or files, in order.

        Raises:
            ApiError: as `with_turns`.
        """
        return await self.with_turns(
            visit, messages, pictures, lambda turns: self._submit(visit, self.ready().request(turns, **options), n)
        )

    async def with_turns(
        self,
        visit: Visit,
        messages: list[Message],
        pictures: Sequence[str | bytes],
        use: Callable[[list[dict[str, Any]]], T],
    ) -> T:
        """What `use`, in a thread, makes of messages with their pictures opened.

        Raises:
            ApiError: what was asked makes no sense, a picture is refused, or there is no time left.
        """
        with self._in_time(), self._counting():
            async with asyncio.timeout(visit.seconds_left):
                allowance = Allowance(self.settings.max_body_bytes)
                fetched = await asyncio.gather(
                    *(self._fetched(one, number, allowance) for number, one in enumerate(pictures, 1))
                )

                def prepare() -> T:
                    files = [_file(one, number) for number, one in enumerate(fetched, 1)]
                    opened = iter(open_all(files, self.settings.max_image_pixels))
                    turns = [_turn(message, opened) for message in messages]
                    visit.facts["images"] = len(files)
                    return use(turns)

                return await self._in_thread(visit, "messages", prepare)

    async def complete(self, visit: Visit, request: CompletionRequest) -> list[Generation]:
        """The `n` texts behind each prompt of a completion request, under way."""
        self._check_model(request.model)
        self.check_sizes(0, sum(map(len, request.prompts())))

        def prepare() -> list[Generation]:
            # The options are checked on a question; what is asked instead has no turns.
            options = {"max_new_tokens": COMPLETION_TOKENS, **request.options()}
            template = self.ready().request([{"role": "user", "content": "."}], **options)
            asked = [dataclasses.replace(template, prompt=self._prompt(text)) for text in request.prompts()]
            for one in asked:
                self.ready().engine.check(one)
            return [made for one in asked for made in self._submit(visit, one, request.n or 1)]

        with self._in_time():
            async with asyncio.timeout(visit.seconds_left):
                return await self._in_thread(visit, "prompt", prepare)

    def _check_model(self, name: str) -> None:
        self.ready()
        if name != self.settings.name:
            message = f"there is no model {name[:80]!r} here, only {self.settings.name!r}"
            raise ApiError(404, message, code="model_not_found", param="model")

    def check_sizes(self, images: int, characters: int) -> None:
        if images > self.settings.max_images:
            raise MediaError(413, "count", f"there are {images} pictures; at most {self.settings.max_images} are taken")
        if characters > self.settings.max_text:
            message = f"the text has more than {self.settings.max_text} characters"
            raise ApiError(400, message, code="context_length_exceeded")

    async def _fetched(self, picture: str | bytes, number: int, allowance: Allowance) -> str | bytes:
        if isinstance(picture, bytes) or picture[:5].lower() == "data:":
            return picture
        return await self.fetcher.fetch(picture, f"picture {number}", allowance)

    def _prompt(self, text: str) -> Encoded:
        ids = torch.tensor(self.plain.ids(text))
        if not len(ids):
            raise ValueError("the prompt is empty")
        return Encoded(ids, ids, torch.empty(0, 768), torch.empty(0, 2, dtype=torch.int64))

    def _submit(self, visit: Visit, request: Request, n: int) -> list[Generation]:
        engine: Engine = self.ready().engine
        if visit.closed:
            raise self._gone(visit)
        started = engine.submit_several(dataclasses.replace(request, timeout=visit.seconds_left), n)
        for generation in started:
            visit.adopt(generation)
        return started

    async def _in_thread(self, visit: Visit, param: str, prepare: Callable[[], T]) -> T:
        if visit.closed:
            raise self._gone(visit)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._preparing, prepare)
        except TooLong as error:
            raise ApiError(400, str(error), code="context_length_exceeded", param=param) from None
        except (OutOfMemory, MemoryError, RuntimeError) as error:
            if isinstance(error, OutOfMemory) or is_out_of_memory(error):
                visit.outcome = "error"
                raise no_memory() from None
            self.ready()  # an engine that died or was closed meanwhile says so itself
            raise
        except ValueError as error:  # sentences for users, see neo.inference
            raise ApiError(400, " ".join(str(error).split())[:500], code="invalid_value") from None

    @contextlib.contextmanager
    def _in_time(self) -> Any:
        try:
            yield
        except TimeoutError:
            raise out_of_time() from None

    @contextlib.contextmanager
    def _counting(self) -> Any:
        try:
            yield
        except MediaError as error:
            self.metrics.decode_errors.labels(error.kind).inc()
            raise

    # --- answers ---

    async def pieces(self, visit: Visit, generations: list[Generation]) -> AsyncIterator[tuple[int, Piece | None]]:
        """What is said, with the number of the answer; None at the end of each.

        Raises:
            ApiError: an answer failed, took too long, or its asker has gone.
        """
        loop = asyncio.get_running_loop()
        for generation in generations:
            generation.listener = _Listener(loop, visit.news, self.metrics, generation)
        under_way = dict(enumerate(generations))
        while under_way:
            for number, generation in list(under_way.items()):
                ended = generation.finish_reason is not None  # before its last pieces are taken
                for piece in generation.pieces():
                    yield number, piece
                if ended:
                    self._check_end(visit, generation)
                    del under_way[number]
                    yield number, None
            if visit.closed:
                raise self._gone(visit)
            if under_way:
                try:
                    async with asyncio.timeout(visit.seconds_left):
                        await visit.news.wait()
                except TimeoutError:  # the engine is in a long step, and would say so only behind it
                    visit.outcome = "timeout"
                    raise out_of_time() from None
                visit.news.clear()

    async def wait(self, visit: Visit, generations: list[Generation]) -> None:
        """Until all answers are there.

        Raises:
            ApiError: as `pieces`.
        """
        async for _ in self.pieces(visit, generations):
            pass

    def count(self, generations: list[Generation]) -> dict[str, int]:
        """Tokens of answers under way or there, for metrics and log."""
        # Of several answers to a prompt the first: the others find in the cache what it has computed.
        prompts = {id(one.request.prompt): one for one in reversed(generations)}.values()
        image = self.model.processor.ids.image if self.model else -1
        return {
            "prompt_tokens": sum(len(one.request.prompt.input_ids) for one in prompts),
            "picture_tokens": sum(int((one.request.prompt.input_ids == image).sum()) for one in prompts),
            "cached_tokens": sum(one.reused_tokens for one in prompts),
            "generated_tokens": sum(len(one.tokens) for one in generations),
        }

    def _check_end(self, visit: Visit, generation: Generation) -> None:
        if generation.finish_reason == "timeout":
            visit.outcome = "timeout"
            raise out_of_time()
        if generation.finish_reason == "cancelled":
            raise self._gone(visit)
        if isinstance(generation.error, OutOfMemory):
            visit.outcome = "error"
            raise no_memory()
        if isinstance(generation.error, TooMuchWork):
            visit.outcome = "refused"
            raise ApiError(400, str(generation.error), param="response_format")
        if generation.finish_reason == "error":
            visit.outcome = "unavailable" if self.draining else "error"
            self.ready()  # the engine has died, or was closed
            logger.error("an answer failed", exc_info=generation.error, extra={"fields": {"request_id": visit.id}})
            raise internal()

    def _gone(self, visit: Visit) -> ApiError:
        """Why nothing more is done for a visit that is closed."""
        visit.outcome = "unavailable" if self._broken_off else "cancelled"
        return ending() if self._broken_off else ApiError(499, "the client has gone")


class _Listener:
    """Called in the engine's thread: wakes the event loop, and takes the time of tokens where they are made."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, news: asyncio.Event, metrics: Metrics, generation: Generation
    ) -> None:
        self._loop, self._news, self._metrics = loop, news, metrics
        self._generation, self._last = generation, 0.0

    def __call__(self) -> None:
        if self._generation.finish_reason is None:
            now = time.monotonic()
            if self._last:
                self._metrics.between.observe(now - self._last)
            self._last = now
        with contextlib.suppress(RuntimeError):  # the loop has ended with the server
            self._loop.call_soon_threadsafe(self._news.set)


def no_memory() -> ApiError:
    return unavailable("the server has no memory left for this; ask again later", "no_memory")


def out_of_time() -> ApiError:
    # Asked again at once it would take as long again.
    message, headers = "the answer took too long and was broken off", {"x-should-retry": "false"}
    return ApiError(504, message, code="timeout", headers=headers)


def _texts(messages: list[Message]) -> list[str]:
    return [part.text for message in messages for part in message.parts() if not isinstance(part, ImagePart)]


def _file(picture: str | bytes, number: int) -> bytes:
    return picture if isinstance(picture, bytes) else from_data_url(picture, f"picture {number}")


def _turn(message: Message, pictures: Any) -> dict[str, Any]:
    """A message as `neo.processing.chat` takes it: in a list of parts, in which `<image>` too is text."""
    parts: list[dict[str, Any]] = []
    for part in message.parts():
        if isinstance(part, ImagePart):
            parts.append({"type": "image", "image": next(pictures)})
        else:
            parts.append({"type": "text", "text": part.text})
    role = "system" if message.role == "developer" else message.role
    return {"role": role, "content": parts}
