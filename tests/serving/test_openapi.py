"""The OpenAPI document against the server: requests made from it are answered as it says, never with 5xx."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serving_tools import Served

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


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
