import sys

import pytest
import ray

from neo.inference.cluster import TRIES, gpus_of, start_ray


def test_a_start_that_fails_is_tried_again_and_then_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    given: list[dict] = []

    def slow(**options: object) -> None:
        given.append(options)
        raise RuntimeError("timed out\nduring startup")

    monkeypatch.setattr(ray, "init", slow)
    with pytest.raises(ValueError, match=r"^Ray does not start \(timed out during startup\)$"):
        start_ray(64)
    assert [one["num_cpus"] for one in given] == [64] * TRIES
    assert given[0]["address"] == "local"  # not one that happens to run on this machine
    assert not given[0]["include_dashboard"]


def test_a_cluster_that_is_named_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict] = []
    monkeypatch.setenv("RAY_ADDRESS", "somewhere:6379")
    monkeypatch.setattr(ray, "init", lambda **options: given.append(options))
    start_ray(64)
    assert "num_cpus" not in given[0]


def test_ray_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"neo-vlm\[scale\]"):
        start_ray(2)


def test_gpus_are_those_of_the_cluster_but_for_a_model_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0, "GPU": 2.0})
    assert (gpus_of("auto"), gpus_of("cuda"), gpus_of("cpu")) == (1, 1, 0)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0})
    assert gpus_of("auto") == 0
