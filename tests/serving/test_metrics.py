"""GET /metrics, and that docs/serving.md names all of it."""

import re

from prometheus_client.parser import text_string_to_metric_families
from serving_tools import ROOT, Served, about, data_url, until

from neo.serving.metrics import KINDS, OUTCOMES, REASONS, Metrics

PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
CHAT = {"model": "neo-demo", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}


def read(served: Served) -> dict[str, float]:
    """Samples by name and labels."""
    response = served.http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(response.text)
    samples = [sample for family in families for sample in family.samples]
    return {f"{one.name}{one.labels or ''}": one.value for one in samples}


def test_what_is_counted(serve, stars: str) -> None:
    with serve() as served:
        before = read(served)
        assert before["neo_requests_running"] == before["neo_requests_waiting"] == 0
        assert before["neo_engine_up"] == 1
        asked = CHAT | {"messages": about(stars, "How many stars are there?"), "max_tokens": 20}
        usage = [served.http.post("/v1/chat/completions", json=asked).json()["usage"] for _ in range(2)]
        served.http.post("/v1/chat/completions", json=CHAT | {"n": 0})
        served.http.post("/v1/chat/completions", json=CHAT | {"messages": about(data_url(b"none"), "What?")})
        served.http.post("/v1/chat/completions", json=CHAT | {"stream": True, "n": 2})
        # A request is counted when its answer has left, and its memory is free with the next step.
        until(lambda: served.at_rest() and read(served).get("neo_requests_total{'outcome': 'ok'}") == 3)
        after = read(served)
        count = {key: value for key, value in after.items() if value != before.get(key, 0)}
        assert count["neo_requests_total{'outcome': 'refused'}"] == 2
        assert count["neo_decode_errors_total{'kind': 'format'}"] == 1
        assert count["neo_prompt_tokens_total"] > sum(one["prompt_tokens"] for one in usage)
        cached = sum(one["prompt_tokens_details"]["cached_tokens"] for one in usage)
        assert count["neo_cached_prompt_tokens_total"] >= cached > 0
        assert count["neo_generated_tokens_total"] > sum(one["completion_tokens"] for one in usage)
        assert count["neo_picture_tokens_total"] == 2 * 64
        assert count["neo_time_to_first_token_seconds_count"] == 4
        assert count["neo_inter_token_seconds_count"] > 0
        assert count["neo_request_seconds_count"] == 3
        assert 0 < count["neo_cache_kept_ratio"] < 1
        assert after["neo_cache_usage_ratio"] == 0
        assert after["neo_preemptions_total"] == 0


def test_labels_are_there_before_anything_happens() -> None:
    text = Metrics().text().decode()
    for name, labels in (("requests", OUTCOMES), ("rejections", REASONS), ("decode_errors", KINDS)):
        counted = re.findall(rf'^neo_{name}_total{{\w+="(\w+)"}} 0.0$', text, re.MULTILINE)
        assert sorted(counted) == sorted(labels)
        [told] = re.findall(rf"^\| `neo_{name}_total` .*: (.*) \|$", PAGE, re.MULTILINE)
        assert re.findall(r"(\w+)(?:$|,| \()", told) == list(labels)


def test_refusals_at_the_door_are_counted(serve) -> None:
    with serve(rate_limit=1) as served:
        statuses = [served.http.post("/v1/chat/completions", json=CHAT).status_code for _ in range(3)]
        assert statuses == [200, 429, 429]
        until(lambda: read(served).get("neo_requests_total{'outcome': 'rejected'}") == 2)
        count = read(served)
        assert count["neo_rejections_total{'reason': 'rate_limit_exceeded'}"] == 2


def test_the_page_names_every_metric_and_no_other(common: Served) -> None:
    served = re.findall(r"^# TYPE (neo_\w+) ", common.http.get("/metrics").text, re.MULTILINE)
    described = {name for name in served if not name.endswith("_created")}
    assert set(re.findall(r"`(neo_\w+)`", PAGE)) == described
