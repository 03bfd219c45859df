"""docs/serving.md: its commands and programs run against a server, its options and statuses are those there are."""

import json
import logging
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from serving_tools import ROOT, Served, request_lines, until

from neo.cli import parse
from neo.cli.serve import serve_parser

PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
SAFE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
HERE = "http://127.0.0.1:8000"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def shell(block: str, served: Served) -> str:
    words = ["bash", "-euo", "pipefail", "-c", block.replace(HERE, served.url).replace("curl -s", "curl --fail -s")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{block}\n{done.stderr}"
    return done.stdout


def test_commands_of_curl(common: Served) -> None:
    analysis, chat, stream, rest = (shell(block, common) for block in blocks("bash"))
    assert set(json.loads(analysis)) == {"answer"}
    assert json.loads(chat)["choices"][0]["message"]["content"].strip(".").lower() == "red"
    assert stream.endswith("data: [DONE]\n\n")
    assert all(word in rest for word in ('"text_completion"', '"list"', '"version"', '"ok"', "neo_engine_up 1.0"))


def test_programs(common: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    for block in blocks("python"):
        exec(compile(block.replace(HERE, common.url), "docs/serving.md", "exec"), {})
    said = capsys.readouterr().out
    assert set(json.loads(said[said.index("{") :])) == {"stars"}


def test_commands_of_neo() -> None:
    for line in "".join(blocks("text")).splitlines():
        program, *words = shlex.split(line)
        assert program == "neo"
        assert parse(words).command == "serve"


def test_options_that_are_named_exist() -> None:
    help_text = serve_parser().format_help()
    assert set(re.findall(r"`(--[a-z-]+)", PAGE + SAFE)) <= set(re.findall(r"--[a-z-]+", help_text))


def test_statuses_are_those_of_the_document(common: Served) -> None:
    told = set(re.findall(r"^\| (\d{3}) \|", PAGE, re.MULTILINE))
    routes = common.http.get("/openapi.json").json()["paths"]
    assert {status for route in routes.values() for one in route.values() for status in one["responses"]} == (
        told - {"401"} | {"200"}
    )


def test_routes_are_those_of_the_document(common: Served) -> None:
    routes = common.http.get("/openapi.json").json()["paths"]
    assert {path for path in routes if not path.endswith("}")} <= set(re.findall(r"/[a-z0-9/]+", PAGE))


def test_the_page_names_what_the_log_has(common: Served, caplog: pytest.LogCaptureFixture) -> None:
    asked = {"model": "neo-demo", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    with caplog.at_level(logging.INFO):
        for body in (asked, asked | {"n": 0}):
            common.http.post("/v1/chat/completions", json=body)
        until(lambda: len(request_lines(caplog.records)) == 2)
    logged = set().union(*request_lines(caplog.records)) - {"time", "level", "logger", "message"}
    section = PAGE.partition("## Log\n")[2].partition("\n## ")[0]
    told = set(re.findall(r"`([a-z_]+)`", section.partition("leaves a line")[2]))
    assert told == logged | {"key", "id"}


def test_tests_that_security_names_exist() -> None:
    for name in re.findall(r"`(test_\w+\.py)`", SAFE):
        assert (Path(__file__).parent / name).exists()
