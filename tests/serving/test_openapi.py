"""The OpenAPI document against the server: requests made from it are answered as it says, never with 5xx."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serving_tools import Served

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance]
CHECKS += [response_headers_conformance, response_schema_conformance]


ROUTES = [
    ("GET", "/health"),
    ("GET", "/metrics"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{name}"),
    ("GET", "/version"),
    ("POST", "/analyze"),
    ("POST", "/attention"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
]


@pytest.fixture(scope="module")
def document(common: Served) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{common.url}/openapi.json")


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_keeps_to_the_document(document: schemathesis.BaseSchema, method: str, path: str) -> None:
    modes = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
    strategies = [document[path][method].as_strategy(generation_mode=mode) for mode in modes]

    @settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
    @given(strategies[0] | strategies[1])
    def keeps_to_it(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS)

    keeps_to_it()


def test_these_are_all_routes(common: Served) -> None:
    paths = common.http.get("/openapi.json").json()["paths"]
    assert sorted((method.upper(), path) for path, route in paths.items() for method in route) == ROUTES


def test_the_document_is_complete(common: Served) -> None:
    document = common.http.get("/openapi.json").json()
    for path, route in document["paths"].items():
        for method, operation in route.items():
            assert operation["description"], (method, path)
            for status, response in operation["responses"].items():
                if path != "/metrics":
                    assert response["content"]["application/json"]["schema"], (path, status)
                if int(status) >= 400:
                    schema = response["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/ErrorResponse"}, (path, status)
    stream = document["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]["content"]
    assert "text/event-stream" in stream


def test_refusals_at_the_door_are_in_the_document(serve) -> None:
    key = "a-key-of-some-length"
    with serve(api_keys=(key,), rate_limit=1) as served:
        assert served.http.get("/openapi.json").status_code == 401
        known = {"Authorization": f"Bearer {key}"}
        document = served.http.get("/openapi.json", headers=known).json()
        schema = schemathesis.openapi.from_dict(document)
        schema.config.update(base_url=served.url)
        for method, path in ROUTES:
            case = schema[path][method].Case(path_parameters={"name": "x"})
            response = case.call()
            assert response.status_code == (200 if path == "/health" else 401), path
            case.validate_response(response, checks=CHECKS)
            assert document["paths"][path][method.lower()].get("security", []) == (
                [] if path == "/health" else [{"key": []}]
            )
        case = schema["/v1/completions"]["POST"].Case(body={}, media_type="application/json")
        for status in (400, 429):
            response = case.call(headers=known)
            assert response.status_code == status
            case.validate_response(response, checks=CHECKS)
    assert document["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}


def test_every_refusal_says_when_to_ask_again_if_that_makes_sense(common: Served) -> None:
    document = common.http.get("/openapi.json").json()
    assert "securitySchemes" not in document["components"]
    for route in document["paths"].values():
        for operation in route.values():
            for status, response in operation["responses"].items():
                assert "x-request-id" in response["headers"]
                assert ("Retry-After" in response["headers"]) is (status in ("429", "503"))
