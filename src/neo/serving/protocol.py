"""OpenAI's requests and answers, as far as they are understood here.

Arguments that OpenAI has and that would change nothing here are accepted; those that would change the answer and cannot
be obeyed are refused, as is what nobody knows.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

MOST_ANSWERS = 16
"""Largest `n`."""
VLLM = "vLLM's: its default is accepted, which changes nothing."
MOST_STOPS = 4
"""Stop strings, as at OpenAI."""
MOST_STOP_CHARACTERS = 1000
"""Of each of them."""
MOST_PARTS = 4096
"""Messages of a request and parts of them together; more fit into no context, and each takes time to look at."""
MOST_ARGUMENTS = 100
"""Of a request, a message or a part, known or not."""


def _refuse(value: Any) -> Any:
    if value not in (None, [], {}, 0, "none", "auto", ["text"]):
        raise ValueError("this is not supported here; leave it out")
    return value


Unsupported = Annotated[Any, AfterValidator(_refuse), Field(description="Not supported: anything but off is refused.")]
Ignored = Annotated[Any, Field(description="Accepted, of no effect.")]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Strict(BaseModel):
    """Refuses what it does not know."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _few(cls, given: Any) -> Any:
        if isinstance(given, dict) and len(given) > MOST_ARGUMENTS:  # each unknown one would be an error of its own
            raise ValueError(f"there are more than {MOST_ARGUMENTS} arguments")
        return given


class TextPart(Strict):
    """Text; what looks like a special token in it is text."""

    type: Literal["text"]
    text: str
    prompt_cache_breakpoint: Ignored = None


class ImageUrl(Strict):
    """Where a picture is."""

    url: str = Field(description="data:image/...;base64,... or, where the server allows its host, https://...")
    detail: Ignored = None


class ImagePart(Strict):
    """A picture, in a user's message."""

    type: Literal["image_url"]
    image_url: ImageUrl
    prompt_cache_breakpoint: Ignored = None


# Lists fail fast: millions of wrong values would otherwise become millions of errors.
Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]
Parts = Annotated[list[Part], Field(max_length=MOST_PARTS, fail_fast=True)]
Stops = Annotated[list[str], Field(max_length=MOST_STOPS, fail_fast=True)]


class Message(Strict):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Parts
    name: Ignored = None
    refusal: Ignored = None
    annotations: Ignored = None
    audio: Unsupported = None
    function_call: Unsupported = None
    tool_calls: Unsupported = None

    def parts(self) -> list[TextPart | ImagePart]:
        return [TextPart(type="text", text=self.content)] if isinstance(self.content, str) else self.content


def _few_parts(messages: Any) -> Any:
    """Counted before any of them is looked at."""
    if isinstance(messages, list):
        contents = [one.get("content") for one in messages[: MOST_PARTS + 1] if isinstance(one, dict)]
        if len(messages) + sum(len(one) for one in contents if isinstance(one, list)) > MOST_PARTS:
            raise ValueError(f"there are more than {MOST_PARTS} messages and parts of them")
    return messages


Messages = Annotated[
    list[Message], Field(min_length=1, max_length=MOST_PARTS, fail_fast=True), BeforeValidator(_few_parts)
]


class TextFormat(Strict):
    """Any text."""

    type: Literal["text"]


class JsonObject(Strict):
    """Any JSON object."""

    type: Literal["json_object"]


class NamedSchema(Strict):
    """A JSON schema; it is always followed, whatever `strict` says."""

    name: str
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class JsonSchema(Strict):
    """JSON that is valid by a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


class StreamOptions(Strict):
    """What a stream has besides the text."""

    include_usage: bool = False
    include_obfuscation: Ignored = None
    continuous_usage_stats: Literal[False] = Field(False, description=VLLM)


class Sampled(Strict):
    """What both kinds of requests have."""

    model: str
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1, description="Most tokens of an answer.")
    temperature: Number | None = Field(None, ge=0, le=2, description="0, the likeliest token always, unless given.")
    top_p: Number | None = Field(None, gt=0, le=1)
    n: int | None = Field(1, ge=1, le=MOST_ANSWERS)
    stop: str | Stops | None = Field(None, description=f"Up to {MOST_STOPS} strings before which the answer ends.")
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    top_k: int | None = Field(
        None, ge=-1, lt=2**31, description="Not OpenAI's: sample among so many likeliest tokens; 0 or -1: among all."
    )
    min_p: Number | None = Field(None, ge=0, le=1, description="Not OpenAI's: least probability next to the likeliest.")
    repetition_penalty: Number | None = Field(None, gt=0, le=10, description="Not OpenAI's: as in transformers.")
    frequency_penalty: Unsupported = None
    presence_penalty: Unsupported = None
    logit_bias: Unsupported = None
    user: Ignored = None
    priority: Ignored = None
    ignore_eos: Literal[False] | None = Field(None, description=VLLM)
    min_tokens: Literal[0] | None = Field(None, description=VLLM)
    skip_special_tokens: Literal[True] | None = Field(None, description=VLLM)

    @model_validator(mode="after")
    def _fits(self) -> "Sampled":
        if not all(0 < len(stop) <= MOST_STOP_CHARACTERS for stop in self.stops()):
            raise ValueError(f"stop must be up to {MOST_STOPS} strings of 1 to {MOST_STOP_CHARACTERS} characters")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options go with stream=true")
        return self

    def stops(self) -> list[str]:
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else self.stop

    def options(self) -> dict[str, Any]:
        """For `ChatModel.request`, what was given alone."""
        names = ("temperature", "top_p", "min_p", "repetition_penalty")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.top_k is not None and self.top_k > 0:
            given["top_k"] = self.top_k
        if self.seed is not None:
            given["seed"] = self.seed % 2**63  # OpenAI's may be below 0
        return given | ({"stop": self.stops()} if self.stops() else {})

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class ChatRequest(Sampled):
    """POST /v1/chat/completions"""

    messages: Messages
    max_completion_tokens: int | None = Field(None, ge=1, description="The newer name of max_tokens.")
    logprobs: bool | None = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    add_generation_prompt: Literal[True] | None = Field(None, description=VLLM)
    response_format: Annotated[TextFormat | JsonObject | JsonSchema, Field(discriminator="type")] | None = None
    tools: Unsupported = None
    tool_choice: Unsupported = None
    functions: Unsupported = None
    function_call: Unsupported = None
    modalities: Unsupported = None
    audio: Unsupported = None
    web_search_options: Unsupported = None
    moderation: Unsupported = None
    parallel_tool_calls: Ignored = None
    metadata: Ignored = None
    store: Ignored = None
    service_tier: Ignored = None
    prediction: Ignored = None
    reasoning_effort: Ignored = None
    verbosity: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_options: Ignored = None
    prompt_cache_retention: Ignored = None

    @model_validator(mode="after")
    def _agrees(self) -> "ChatRequest":
        if self.messages[-1].role != "user":
            raise ValueError("the last message must be the user's, to be answered")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens are two names of one limit; give one")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs go with logprobs=true")
        return self

    def options(self) -> dict[str, Any]:
        options = super().options()
        if limit := self.max_completion_tokens or self.max_tokens:
            options["max_new_tokens"] = limit
        if self.logprobs:
            options["logprobs"] = self.top_logprobs or 0
        if isinstance(self.response_format, JsonObject):
            options["json_schema"] = {"type": "object"}
        elif isinstance(self.response_format, JsonSchema):
            options["json_schema"] = self.response_format.json_schema.schema_
        return options


class CompletionRequest(Sampled):
    """POST /v1/completions: text that the model goes on with, outside any conversation."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=MOST_ANSWERS, fail_fast=True)]
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: Unsupported = None
    suffix: Unsupported = None
    best_of: Unsupported = None

    def prompts(self) -> list[str]:
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt

    def options(self) -> dict[str, Any]:
        options = super().options()
        if self.max_tokens is not None:
            options["max_new_tokens"] = self.max_tokens
        if self.logprobs is not None:
            options["logprobs"] = self.logprobs
        return options


class AttentionRequest(Strict):
    """POST /attention: where the model looked as it said a word of an answer that it gave."""

    model: str
    messages: Messages = Field(description="Those that were answered.")
    answer: str = Field(min_length=1, description="The answer to them, as it was given.")
    start: int = Field(ge=0, description="Where the word begins in it, in characters.")
    stop: int = Field(ge=1, description="Where it ends.")

    @model_validator(mode="after")
    def _fits(self) -> "AttentionRequest":
        if self.messages[-1].role != "user":
            raise ValueError("the last message must be the user's, whose answer is given beside it")
        if not self.start < self.stop <= len(self.answer):
            raise ValueError(f"start and stop must lie in this order in the answer's {len(self.answer)} characters")
        return self


# --- answers ---


class PictureAttention(BaseModel):
    """Of one picture's tokens, row by row: the share of attention that went to each."""

    rows: int
    columns: int
    shares: list[float]


class Attention(BaseModel):
    """Over the pictures of a conversation, in order. All shares together are below 1: the rest went to words."""

    pictures: list[PictureAttention]


class PromptDetails(BaseModel):
    """Of the prompt's tokens, those found in the cache."""

    cached_tokens: int


class Usage(BaseModel):
    """Tokens of the prompt, once, and of all answers to it."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class TopLogprob(BaseModel):
    """One likely token."""

    token: str
    logprob: float
    bytes: list[int]


class Logprob(TopLogprob):
    """A token that was said, and the likeliest at its place."""

    top_logprobs: list[TopLogprob]


class Logprobs(BaseModel):
    """Of a message's tokens."""

    content: list[Logprob]
    refusal: None = None


class Said(BaseModel):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


Finish = Literal["stop", "length"]


class Choice(BaseModel):
    """One of `n` answers."""

    index: int
    message: Said
    logprobs: Logprobs | None = None
    finish_reason: Finish


class ChatCompletion(BaseModel):
    """The whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class TextLogprobs(BaseModel):
    """As /v1/completions has always told them."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(BaseModel):
    """One answer to one of the prompts, or a piece of it in a stream."""

    index: int
    text: str
    logprobs: TextLogprobs | None = None
    finish_reason: Finish | None = None


class Completion(BaseModel):
    """Text behind the prompts; in a stream, a piece of it."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage | None = None


class Model(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "neo"
    max_model_len: int | None = Field(description="vLLM's name for the context, in tokens; null while it loads.")


class Models(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[Model]


class Analysis(BaseModel):
    """The answer of /analyze."""

    answer: str


class Health(BaseModel):
    """The server answers."""

    status: Literal["ok"] = "ok"


class Version(BaseModel):
    """Of the package."""

    version: str


class ErrorBody(BaseModel):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    """A refusal."""

    error: ErrorBody
