"""The routes."""

import json
import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, File, Form, Request, UploadFile
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import StreamingResponse
from starlette.responses import Response

from neo.serving import chat, playground, text
from neo.serving.admission import Queue
from neo.serving.answering import Answering
from neo.serving.attention import look
from neo.serving.door import OPEN, Door
from neo.serving.errors import ApiError, add_handlers, internal
from neo.serving.protocol import (
    Analysis,
    Attention,
    AttentionRequest,
    ChatCompletion,
    ChatRequest,
    Completion,
    CompletionRequest,
    ErrorResponse,
    Health,
    ImagePart,
    ImageUrl,
    Message,
    Model,
    Models,
    TextPart,
    Version,
)
from neo.serving.visit import Visit
from neo.version import __version__

logger = logging.getLogger(__name__)

REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorResponse, "description": "The request makes no sense, or is longer than the model's context."},
    404: {"model": ErrorResponse, "description": "There is no such model."},
    408: {"model": ErrorResponse, "description": "The body did not come in time."},
    413: {"model": ErrorResponse, "description": "The body, or its pictures, are too large."},
    415: {"model": ErrorResponse, "description": "The body, or a picture, is in none of the formats read."},
    422: {"model": ErrorResponse, "description": "A picture is damaged, too thin, or cannot be fetched."},
    429: {"model": ErrorResponse, "description": "Too many requests: see the header Retry-After."},
    500: {"model": ErrorResponse, "description": "Not the asker's fault."},
    503: {"model": ErrorResponse, "description": "Loading, ending, or dead."},
    504: {"model": ErrorResponse, "description": "The answer took too long."},
}
NO_KEY: dict[int | str, dict[str, Any]] = {401: {"model": ErrorResponse, "description": "A valid API key is needed."}}
HEADERS = {
    "x-request-id": "What the request is called in the log.",
    "Retry-After": "Seconds until it makes sense to ask again.",
    "WWW-Authenticate": "Bearer",
}
"""Of answers: the first of all, the others of some refusals."""
HEADERS_OF = {"401": "WWW-Authenticate", "429": "Retry-After", "503": "Retry-After"}
STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}


def create_app(answering: Answering, queue: Queue) -> FastAPI:
    """All routes, and the door around them."""
    app = FastAPI(
        title="NEO",
        version=__version__,
        description="A vision-language model behind OpenAI's interface.",
        responses=NO_KEY if answering.settings.api_keys else {},
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # a redirect names the host that the request named
    )
    app.add_middleware(Door, answering=answering, queue=queue)
    if answering.settings.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=answering.settings.origins, allow_methods=["*"], allow_headers=["*"]
        )
    add_handlers(app)
    _add_answers(app, answering)
    _add_facts(app, answering)
    playground.add_routes(app)
    _complete(app.openapi(), bool(answering.settings.api_keys))  # FastAPI keeps what it has made
    return app


def _complete(document: dict[str, Any], keys: bool) -> None:
    """Say in the OpenAPI document what the door does."""
    if keys:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, route in document["paths"].items():
        for operation in route.values():
            if path in OPEN:
                operation["responses"].pop("401", None)
            elif keys:
                operation["security"] = [{"key": []}]
            for status, response in operation["responses"].items():
                names = ["x-request-id", *([HEADERS_OF[status]] if status in HEADERS_OF else [])]
                response["headers"] = {
                    name: {"description": HEADERS[name], "schema": {"type": "string"}} for name in names
                }


def visit_of(request: Request) -> Visit:
    """What the door made of a request."""
    visit: Visit = request.state.visit
    return visit


Visiting = Annotated[Visit, Depends(visit_of)]


async def check_form(request: Request) -> None:
    """Of /analyze: one picture and one question, nothing else.

    Raises:
        ApiError: it is another.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        message = "the body must be a form (multipart/form-data) with the file image and the text question"
        raise ApiError(415, message, code="unsupported_media_type")
    form = (await request.form()).multi_items()
    for name in ("image", "question"):
        values = [value for key, value in form if key == name]
        if len(values) != 1 or isinstance(values[0], str) != (name == "question"):
            kind = "text" if name == "question" else "file (-F image=@picture.png)"
            raise ApiError(400, f"{name} must be given once, as a {kind}", param=name)
    if unknown := [key for key, _ in form if key not in ("image", "question")]:
        message = f"unrecognized request argument: {unknown[0][:80]}"
        raise ApiError(400, message, code="unknown_parameter", param=unknown[0][:80])


def _add_answers(app: FastAPI, answering: Answering) -> None:
    @app.post("/v1/chat/completions", response_model=ChatCompletion, responses={**REFUSALS, **STREAM})
    async def chat_completions(body: ChatRequest, visit: Visiting) -> Any:
        """Answer a conversation, also about pictures."""
        visit.admit(body.n or 1)
        visit.facts["stream"] = bool(body.stream)
        if not body.stream:
            return await chat.answer(answering, visit, body)
        generations = await answering.chat(visit, body)
        return _stream(visit, chat.chunks(answering, visit, body, generations))

    @app.post("/v1/completions", response_model=Completion, responses={**REFUSALS, **STREAM})
    async def completions(body: CompletionRequest, visit: Visiting) -> Any:
        """Go on with a text."""
        visit.admit((body.n or 1) * len(body.prompts()))
        visit.facts["stream"] = bool(body.stream)
        if not body.stream:
            return await text.answer(answering, visit, body)
        generations = await answering.complete(visit, body)
        return _stream(visit, text.chunks(answering, visit, body, generations))

    @app.post("/analyze", response_model=Analysis, responses=REFUSALS, dependencies=[Depends(check_form)])
    async def analyze(
        image: Annotated[UploadFile, File(description="A picture.")],
        question: Annotated[str, Form(min_length=1)],
        visit: Visiting,
    ) -> Analysis:
        """Ask one question about one picture."""
        answering.check_sizes(1, len(question))
        file = await image.read()
        asked: list[TextPart | ImagePart] = [
            ImagePart(type="image_url", image_url=ImageUrl(url="")),
            TextPart(type="text", text=question),
        ]
        generations = await answering.ask(visit, [Message(role="user", content=asked)], [file], {})
        await answering.wait(visit, generations)
        return Analysis(answer=generations[0].completion().text)

    @app.post("/attention", response_model=Attention, responses=REFUSALS)
    async def attention(body: AttentionRequest, visit: Visiting) -> Attention:
        """Where the model looked in the pictures as it said a word of its answer."""
        return await look(answering, visit, body)


def _add_facts(app: FastAPI, answering: Answering) -> None:
    def _model() -> Model:
        return Model(id=answering.settings.name, created=answering.created, max_model_len=answering.context)

    @app.get("/v1/models")
    async def models() -> Models:
        """The model that is served."""
        return Models(data=[_model()])

    @app.get("/v1/models/{name:path}", responses={404: REFUSALS[404], 422: REFUSALS[422]})
    async def model(name: str) -> Model:
        """The model, if it is called so."""
        if name != answering.settings.name:
            raise ApiError(404, f"there is no model {name[:80]!r} here", code="model_not_found", param="model")
        return _model()

    @app.head("/health", include_in_schema=False)
    @app.get("/health", responses={503: REFUSALS[503]})
    async def health() -> Health:
        """Whether requests are answered; 503 while loading, ending, or when the engine is dead."""
        answering.ready()
        return Health()

    @app.get("/version")
    async def version() -> Version:
        """Of the package."""
        return Version(version=__version__)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(answering.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _stream(visit: Visit, chunks: AsyncIterator[dict[str, Any]]) -> StreamingResponse:
    """Server-sent events that end in [DONE]; what goes wrong on the way is one of them."""

    async def events() -> AsyncIterator[str]:
        try:
            async for chunk in chunks:
                yield f"data: {json.dumps(chunk)}\n\n"
        except ApiError as error:
            visit.facts |= error.facts()
            yield f"data: {json.dumps(error.body())}\n\n"
        except Exception:
            visit.outcome = "error"
            logger.exception("a stream failed", extra={"fields": {"request_id": visit.id}})
            yield f"data: {json.dumps(internal().body())}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
