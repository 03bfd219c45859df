"""What `neo.load_model` returns: ask about pictures, in batches, as a stream, in a conversation.

model = neo.load_model("neo-demo")
model.generate(image="photo.jpg", text="What is this?")
chat = model.start_chat()
chat.ask("What color is it?", image="photo.jpg"); chat.ask("And its shape?")

In a question `<image>` marks where a picture stands, once for each; without any, the pictures stand before
the text, several of them numbered `Image-1: `, `Image-2: ` and so on.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, overload

from PIL import Image

from neo.inference.constraint import Grammars, Schema, UnfinishedAnswer
from neo.inference.engine import Engine
from neo.inference.generation import Completion, Constraint, Generation, Request
from neo.inference.messages import (
    Example,
    Messages,
    as_list,
    as_messages,
    copy_messages,
    question_message,
    system_message,
)
from neo.inference.sampling import Sampling
from neo.model.neo import NeoForConditionalGeneration
from neo.processing.image import NeoImageProcessor, smart_resize
from neo.processing.picture import MAX_ASPECT_RATIO, load_image
from neo.processing.processor import NeoProcessor
from neo.processing.video import read_frames

DEFAULT_NEW_TOKENS = 512
TILES = 6
"""Most pieces that `tile=True` cuts a very large picture into, besides an overview of it."""


class ChatModel:
    """A loaded NEO: `model` (the network), `processor`, `name`, and the `engine` that answers (see its module).

    The methods take the same options:
        max_length, max_new_tokens: two names for how many tokens the answer may have; 512 unless given.
        temperature, top_p, top_k, min_p, repetition_penalty, seed: see `Sampling`; by default the likeliest token
            always.
        stop: a string, or several, before which the answer ends.
        logprobs: log-probabilities of the chosen tokens, and of so many likeliest ones, come with the answer.
        timeout: seconds after which the answer ends as it is.
        json_schema, regex, choices: one of these for the form of the answer: JSON that is valid by a schema (a dict,
            its JSON text or a pydantic class), text that a regular expression matches, or one of several texts. The
            form is kept whatever the sampling; an answer broken off before it is complete is an `UnfinishedAnswer`.
        tile: cut pictures above the pixel limit into up to 6 (True) or so many tiles beside an overview. It
            shows small print, and costs up to 7 times the tokens.
    A picture is a path, a PIL image, the bytes of a file, a file object or an array.
    """

    def __init__(
        self,
        model: NeoForConditionalGeneration,
        processor: NeoProcessor,
        name: str = "",
        cache_memory: int | None = None,
        max_batch: int = 16,
    ) -> None:
        self.model, self.processor, self.name = model, processor, name
        self._stop_ids = frozenset({processor.ids.im_end, processor.tokenizer.eos_token_id} - {None})
        self._cache_memory, self._max_batch = cache_memory, max_batch
        self._making = threading.Lock()  # threads may ask first at the same time
        self._engine: Engine | None = None
        self._grammars: Grammars | None = None

    @property
    def engine(self) -> Engine:
        """What answers; made when first needed, unless one of your own is set."""
        with self._making:
            if self._engine is None:
                options: dict[str, Any] = {"cache_memory": self._cache_memory, "max_batch": self._max_batch}
                self._engine = Engine(self.model, self.processor, **options)
            return self._engine

    @engine.setter
    def engine(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def grammars(self) -> Grammars:
        """What answers can be held to; made when first needed."""
        with self._making:
            if self._grammars is None:
                size = self.model.config.text_config.vocab_size
                self._grammars = Grammars(self.processor.tokenizer, size, self._stop_ids)
            return self._grammars

    @overload
    def generate(self, messages: Messages | None = None, *, n: None = None, **question: Any) -> str: ...

    @overload
    def generate(self, messages: Messages | None = None, *, n: int, **question: Any) -> list[str]: ...

    def generate(
        self,
        messages: Messages | None = None,
        *,
        image: Any = None,
        text: str | None = None,
        system: str | None = None,
        examples: Sequence[Example] = (),
        video: Any = None,
        fps: float = 1.0,
        max_frames: int = 128,
        n: int | None = None,
        **options: Any,
    ) -> str | list[str]:
        """Answer a question about one or several pictures or none, or the last of a list of messages.

        Args:
            messages: a whole conversation, in place of image and text (see `neo.processing.chat`).
            image: a picture, a list of them, or None.
            text: the question.
            system: system prompt.
            examples: of (picture or pictures or None, question, answer), put before the question as earlier turns.
            video: a file, a folder of frames or what `read_frames` gave, seen as pictures with their times before the
                text.
            fps: frames looked at in a second of the video; of a folder, how many make a second.
            max_frames: where there would be more, so many are spread over the whole video.
            n: for a list of so many answers, whose question is computed once. The first is the answer without it,
                the others have seeds made of the given one; without a temperature they are all the same.
            options: see the class.

        Raises:
            ValueError: bad input, in one sentence: nothing to answer, an unreadable picture, an option
                outside its range, a conversation longer than the model's context; `UnfinishedAnswer`, see the class.
        """
        about = {"image": image, "text": text, "system": system, "examples": examples}
        film = {"video": video, "fps": fps, "max_frames": max_frames}
        answers = self.answers(messages, n=1 if n is None else n, **about, **film, **options)
        return answers[0].text if n is None else [answer.text for answer in answers]

    def answer(self, messages: Messages | None = None, **question: Any) -> Completion:
        """As `generate`, with tokens, log-probabilities, why it ended and how long it took."""
        return self.answers(messages, n=1, **question)[0]

    def answers(self, messages: Messages | None = None, *, n: int, **question: Any) -> list[Completion]:
        """As `generate` with n, each as `answer` gives it."""
        return _all_whole(self.engine.submit_several(self._asked(messages, **question), n))

    def stream(self, messages: Messages | None = None, **question: Any) -> Iterator[str]:
        """As `generate`, in pieces as they are said; bad input is raised at once, before the first piece."""
        return self.pieces(self._asked(messages, **question))

    def generate_batch(
        self,
        images: Sequence[Any] | None,
        texts: Sequence[str] | str,
        *,
        system: str | None = None,
        examples: Sequence[Example] = (),
        **options: Any,
    ) -> list[str]:
        """Answer several questions at once: what `generate` answers to each alone (below float32, up to rounding).

        Args:
            images: for each question a picture, a list of them or None; None for text alone.
            texts: the questions, or one that is asked of every picture.
            system: system prompt of all of them.
            examples: as in `generate`, the same for all; they are computed once.
            options: see the class.

        Raises:
            ValueError: as `generate`; the sentence says which question, counted from 1.
        """
        if isinstance(images, str | bytes) or (images is not None and not isinstance(images, Sequence)):
            raise ValueError("images must be a list with a picture, a list of pictures or None for each question")
        if isinstance(texts, str):
            texts = [texts] * (1 if images is None else len(images))
        if not isinstance(texts, Sequence):
            raise ValueError(f"texts must be a list of questions or one question, not {type(texts).__name__}")
        images = [None] * len(texts) if images is None else images
        if len(images) != len(texts):
            raise ValueError(f"{len(images)} images and {len(texts)} texts were given; give one image for each text")
        requests = []
        for number, (image, text) in enumerate(zip(images, texts, strict=True), 1):
            try:
                requests.append(self._asked(None, image=image, text=text, system=system, examples=examples, **options))
            except ValueError as error:
                raise ValueError(f"question {number}: {error}") from error
        return [answer.text for answer in _all_whole([self.engine.submit(request) for request in requests])]

    def start_chat(self, system: str | None = None, tile: bool | int = False) -> "Chat":
        """Begin a conversation."""
        return Chat(self, system, tile)

    def request(
        self,
        messages: Messages,
        *,
        max_length: int | None = None,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int | None = None,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        logprobs: int | None = None,
        timeout: float | None = None,
        json_schema: Schema | None = None,
        regex: str | None = None,
        choices: Sequence[str] | None = None,
        tile: bool | int = False,
    ) -> Request:
        """Check and encode a conversation that ends with the user's turn."""
        sampling = Sampling(temperature, top_p, top_k, min_p, repetition_penalty, seed)
        limit = _one_limit(max_length, max_new_tokens)
        stops = (stop,) if isinstance(stop, str) or not isinstance(stop, Iterable) else tuple(stop)
        if not all(isinstance(one, str) and one for one in stops):
            raise ValueError(f"stop={stop!r} must be a string that is not empty, or several")
        if logprobs is not None and not (_is_whole(logprobs) and logprobs >= 0):
            raise ValueError(f"logprobs={logprobs!r} must be a whole number of at least 0")
        if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
            raise ValueError(f"timeout={timeout!r} must be a number of seconds above 0")
        constraint = self._constraint(json_schema=json_schema, regex=regex, choices=choices)
        if constraint and stops:
            raise ValueError("stop would cut the answer out of its form: leave it out with json_schema, regex, choices")
        prompt = self.processor.encode(messages, add_generation_prompt=True, max_tiles=_tiles(tile))
        limit = limit or max(1, min(DEFAULT_NEW_TOKENS, self.engine.room_behind(prompt)))
        request = Request(prompt, limit, sampling, self._stop_ids, stops, logprobs, constraint, timeout)
        self.engine.check(request)
        return request

    def pieces(self, request: Request) -> Iterator[str]:
        """Text as it is said, of a request made by `request`."""
        # Handed over at the first piece: a stream that nobody reads costs nothing.
        generation = self.engine.submit(request)
        for piece in generation:
            if piece.text:
                yield piece.text
        whole(generation)

    def _asked(
        self,
        messages: Messages | None,
        image: Any = None,
        text: str | None = None,
        system: str | None = None,
        examples: Sequence[Example] = (),
        video: Any = None,
        fps: float = 1.0,
        max_frames: int = 128,
        **options: Any,
    ) -> Request:
        frames = None if video is None else read_frames(video, fps, max_frames)
        return self.request(as_messages(messages, image, text, system, examples, frames), **options)

    def _constraint(self, **forms: Any) -> Callable[[], Constraint] | None:
        given = {name: form for name, form in forms.items() if form is not None}
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} both say what the answer must look like; give one")
        for name, form in given.items():
            return getattr(self.grammars, name)(form)
        return None


def whole(generation: Generation) -> Completion:
    """An answer's end; one that was to have a form and does not is never taken for an answer."""
    completion = generation.result()
    if generation.request.constraint is not None and completion.finish_reason != "stop":
        raise UnfinishedAnswer(completion, generation.request.max_new_tokens)
    return completion


def _all_whole(generations: Sequence[Generation]) -> list[Completion]:
    """The ends of answers under way together; where one goes wrong, the others are broken off."""
    try:
        return [whole(generation) for generation in generations]
    finally:
        for generation in generations:
            generation.cancel()


class Chat:
    """A conversation with a model, made by `ChatModel.start_chat`.

    The engine keeps what it computed for earlier turns, so that a turn costs its own tokens only. A turn that fails,
    or is broken off, is as if it had not been asked.
    """

    def __init__(self, model: ChatModel, system: str | None = None, tile: bool | int = False) -> None:
        _tiles(tile)
        self._model, self._system, self._tile = model, system, tile
        self.reset()

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation so far (a copy), as `generate` takes it."""
        return copy_messages(self._messages)

    def reset(self) -> None:
        """Forget everything but the system prompt."""
        self._messages = system_message(self._system)

    def ask(self, text: str, image: Any = None, **options: Any) -> str:
        """The answer to a next turn.

        Args:
            text: the question.
            image: a picture, a list of them, or None.
            options: video, fps and max_frames as in `ChatModel.generate`, and the options of its class.

        Raises:
            ValueError: as `generate`.
        """
        return "".join(self.stream(text, image, **options))

    def stream(
        self,
        text: str,
        image: Any = None,
        *,
        video: Any = None,
        fps: float = 1.0,
        max_frames: int = 128,
        **options: Any,
    ) -> Iterator[str]:
        """As `ask`, in pieces as they are said."""
        # Pictures are opened now: a file may change between turns, and a stream can be read only once.
        pictures = [load_image(one) for one in as_list(image)]
        frames = None if video is None else read_frames(video, fps, max_frames)
        asked = question_message(text, pictures, frames)
        request = self._model.request([*self._messages, asked], tile=self._tile, **options)
        if _tiles(self._tile) == 1:
            seen = partial(_as_seen, images=self._model.processor.image_processor)
            frames = frames and [frame._replace(picture=seen(frame.picture)) for frame in frames]
            asked = question_message(text, [seen(one) for one in pictures], frames)
        return self._say([*self._messages, asked], request)

    def _say(self, messages: list[dict[str, Any]], request: Request) -> Iterator[str]:
        said = []
        for piece in self._model.pieces(request):
            said.append(piece)
            yield piece
        self._messages = [*messages, {"role": "assistant", "content": "".join(said)}]


def _as_seen(picture: Image.Image, images: NeoImageProcessor) -> Image.Image:
    """A picture at the size that the model reads, which reading it again leaves as it is."""
    height, width = smart_resize(picture.height, picture.width, images.factor, images.min_pixels, images.max_pixels)
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        return picture  # rounding made it too thin to be read again
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def _tiles(tile: bool | int) -> int:
    if isinstance(tile, bool):
        return TILES if tile else 1
    if not isinstance(tile, int) or tile < 1:
        raise ValueError(f"tile={tile!r} must be True, False or the most tiles, at least 1")
    return tile


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _one_limit(max_length: int | None, max_new_tokens: int | None) -> int | None:
    """Both names bound the new tokens."""
    for name, value in (("max_length", max_length), ("max_new_tokens", max_new_tokens)):
        if value is not None and not (_is_whole(value) and value >= 1):
            raise ValueError(f"{name}={value!r} must be a whole number of at least 1")
    if None not in (max_length, max_new_tokens) and max_length != max_new_tokens:
        raise ValueError(f"max_length={max_length} and max_new_tokens={max_new_tokens} both bound the answer; give one")
    return max_length or max_new_tokens
