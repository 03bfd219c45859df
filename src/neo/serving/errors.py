"""Refusals, in the shape that OpenAI's clients know."""

import json
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    504: "timeout_error",
}
"""What the error is by its status; others are invalid_request_error."""


WORDS = {
    "missing": "is missing",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "string_too_short": "must not be empty",
    "too_short": "must have at least {min_length}",
    "too_long": "must have at most {max_length}",
    "union_tag_invalid": "must have a type of {expected_tags}",
    "union_tag_not_found": "must have a type",
}
"""By pydantic's types of errors, what is wrong with an argument."""
NAMES = {
    "string": "a string",
    "int": "a whole number",
    "float": "a number",
    "finite": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "an object",
    "model": "an object",
}
"""What an argument has to be, by how the types of the other errors begin."""


class ApiError(HTTPException):
    """A refusal. `message` is read by whoever asked: it holds no text of a library and no address."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.code, self.param = code, param
        self.reason = code
        """For the log, where it can be more exact."""

    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        kind = TYPES.get(self.status_code, "invalid_request_error")
        return {"error": {"message": self.detail, "type": kind, "param": self.param, "code": self.code}}

    def facts(self) -> dict[str, Any]:
        """For the log: nothing that whoever asked has written, so not what an unknown argument is called."""
        param = None if self.code == "unknown_parameter" else self.param
        return {name: value for name, value in (("error", self.reason), ("param", param)) if value}

    def response(self) -> Response:
        return AsciiJSON(self.body(), self.status_code, self.headers)


class AsciiJSON(JSONResponse):
    """JSON in ASCII: what is quoted of a request may hold halves of characters, which UTF-8 cannot."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def add_handlers(app: FastAPI) -> None:
    """Let every refusal in the app be told in this shape; the door does so for what goes wrong."""

    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> Response:
        request.state.visit.facts |= error.facts()
        return error.response()

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> Response:
        messages = {404: f"there is no {request.url.path} here", 405: f"{request.method} is not possible here"}
        message = messages.get(error.status_code, "the body of the request cannot be read")
        refusal = ApiError(error.status_code, message, headers=dict(error.headers or {}))
        return await refused(request, refusal)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return await refused(request, _invalid(error, request.headers.get("content-type", "")))


def internal() -> ApiError:
    """Something went wrong that is not the asker's fault; the log has it under the request's id."""
    return ApiError(500, "something went wrong in the server; its log has this request under its x-request-id")


def unavailable(message: str, code: str | None = None) -> ApiError:
    """Not now, perhaps later."""
    return ApiError(503, message, code=code, headers={"Retry-After": "5"})


def ending() -> ApiError:
    return unavailable("the server is ending", "ending")


def _invalid(error: RequestValidationError, content_type: str) -> ApiError:
    # Of a union, the part that came nearest.
    first = max(error.errors(), key=lambda one: (len(one["loc"]), not one["type"].endswith("_type")))
    if first["type"] == "json_invalid":
        return ApiError(400, "the body is not JSON", code="invalid_json")
    if "body" in first["loc"][:1] and len(first["loc"]) == 1 and "json" not in content_type:
        message = "the body must be JSON with the content type application/json"
        return ApiError(415, message, code="unsupported_media_type")
    place = [str(one) for one in first["loc"][1:] if isinstance(one, int) or str(one).isidentifier()]
    names = [one for one in place if one not in ("str", "int", "float", "bool")]
    # The part of a union is called as the field in it: messages.0.content.0.image_url.image_url
    param = ".".join(one for one, before in zip(names, ["", *names], strict=False) if one != before) or None
    if first["type"] == "extra_forbidden":
        return ApiError(400, f"unrecognized request argument: {param}", code="unknown_parameter", param=param)
    refusal = ApiError(400, f"{param or 'the body'}{_complaint(first)}", param=param)
    refusal.reason = first["type"]
    return refusal


def _complaint(error: dict[str, Any]) -> str:
    """In our own words."""
    kind = error["type"]
    if kind == "value_error":
        return ": " + error["msg"].removeprefix("Value error, ")
    if kind in WORDS:
        return " " + WORDS[kind].format(**error.get("ctx", {}))
    name = NAMES.get(kind.partition("_")[0])
    return f" must be {name}" if name else " is not as it should be"
