"""docs/scaling.md and deploy/ray-serve.yaml: commands run or are parsed, fields are Ray's and the application's."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from ray.serve.schema import DeploymentSchema, HTTPOptionsSchema, ServeApplicationSchema, ServeDeploySchema
from ray.serve.scripts import cli as serve
from serving_tools import ROOT

from neo.cli import main, parse
from neo.serving.ray_app import build

PAGE = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
CONFIG = yaml.safe_load((ROOT / "deploy" / "ray-serve.yaml").read_text(encoding="utf-8"))
[APPLICATION] = CONFIG["applications"]


def commands(language: str) -> list[list[str]]:
    """The words of the commands of the page's blocks in a language."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for line in "".join(blocks).splitlines()]


def test_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    [[program, *words]] = commands("bash")
    assert program == "neo"
    assert main([*words, "--max-new-tokens", "4", "--device", "cpu"]) == 0
    assert capsys.readouterr().out == "answers.jsonl: 8 records\n"
    row = json.loads((tmp_path / "answers.jsonl").read_text().splitlines()[0])
    assert row["source"] == "examples/images/chart.png"
    assert all(f"`{name}`" in PAGE for name in row)


@pytest.mark.parametrize("words", commands("text"), ids=" ".join)
def test_commands_exist(words: list[str]) -> None:
    program, command, *rest = words
    if program == "neo":
        assert parse([command, *rest]).command == command
    else:
        assert program == "serve"
        serve.commands[command].make_context(command, list(rest))
        assert all((ROOT / word).is_file() for word in rest)


def test_the_configuration_has_fields_that_there_are() -> None:
    ServeDeploySchema.model_validate(CONFIG)  # which lets unknown fields pass
    assert CONFIG.keys() <= ServeDeploySchema.model_fields.keys()
    assert CONFIG["http_options"].keys() <= HTTPOptionsSchema.model_fields.keys()
    assert APPLICATION.keys() <= ServeApplicationSchema.model_fields.keys()
    for deployment in APPLICATION["deployments"]:
        assert deployment.keys() <= DeploymentSchema.model_fields.keys()


def test_the_configuration_builds_the_application(tmp_path: Path) -> None:
    module, _, name = APPLICATION["import_path"].partition(":")
    assert (module, name) == (build.__module__, build.__name__)
    (tmp_path / "keys.txt").write_text("0123456789abcdef\n")
    front = build({**APPLICATION["args"], "api_key_file": str(tmp_path / "keys.txt")})._bound_deployment
    replica = front.init_args[0]._bound_deployment
    assert front.init_args[1].api_keys == ("0123456789abcdef",)
    assert front.init_args[1].name == "NEO-2B-SFT"
    assert [one["name"] for one in APPLICATION["deployments"]] == [front.name, replica.name]
    scaling = APPLICATION["deployments"][1]["autoscaling_config"]
    assert scaling["target_ongoing_requests"] < APPLICATION["args"]["max_batch"]


def test_arguments_that_the_page_names_are_taken() -> None:
    names = re.search(r"Under `args` stand (.*?)a name that is none", PAGE, re.DOTALL)
    assert names is not None
    given = set(re.findall(r"`([a-z_]+)`", names[1])) - {"api_key_file"}
    assert given >= {"model", "dtype", "gpus", "max_batch", "cache_memory"}
    build(dict.fromkeys(given, 1) | {"model": "neo-demo"})
