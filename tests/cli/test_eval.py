"""`neo eval`: what it prints, what it writes, and how it refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def data(tmp_path: Path) -> Path:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    records = [{"image": "red.png", "question": f"Color {n}?", "answer": "red"} for n in range(3)]
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def words(tiny_checkpoint: Path, data: Path) -> list[object]:
    """A command that works."""
    return ["eval", "--model", tiny_checkpoint, "--data", data, "--device", "cpu", "--max-new-tokens", 3]


def test_a_table_and_a_folder(run: Callable[..., str], words: list[object], tmp_path: Path) -> None:
    said = run(*words, "--metrics", "accuracy, cer,latency,memory", "--output", tmp_path / "out")
    assert "| family | questions | accuracy | cer |" in said
    assert "| all | 3 | 0.0% (0.0 to 0.0%) |" in said
    assert "Peak memory: " in said
    assert said.endswith(f"Report: {tmp_path / 'out' / 'report.html'}\n")
    summary = json.loads(run(*words, "--metrics", "exact", "--output", tmp_path / "out", "--json"))
    assert list(summary["metrics"]) == ["exact"]
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary


def test_some_records_judged_by_a_schema(run: Callable[..., str], words: list[object], tmp_path: Path) -> None:
    records = [{"question": f"What is {n}?", "answer": {"n": n}} for n in range(9)]
    (tmp_path / "test.json").write_text(json.dumps(records))
    (tmp_path / "schema.json").write_text('{"type": "object"}')
    more = ["--data", tmp_path / "test.json", "--json-schema", tmp_path / "schema.json", "--metrics", "json"]
    summary = json.loads(run(*words, *more, "--number", 4, "--json"))
    assert summary["questions"] == 4
    assert summary["metrics"]["json.valid"]["all"]["value"] == 0


def test_comparing(run: Callable[..., str], words: list[object], tmp_path: Path) -> None:
    run(*words, "--output", tmp_path / "a")
    run(*words, "--output", tmp_path / "b")
    assert "0 records changed by accuracy" in run("eval", "--compare", tmp_path / "a", tmp_path / "b")
    assert json.loads(run("eval", "--compare", tmp_path / "a", tmp_path / "b", "--json"))["changed"] == []


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--metrics", "speed"], "there is no metric 'speed'"),
        (["--data", "none.jsonl"], "none.jsonl: there is no such file of records"),
        (["--batch-size", "0"], "batch_size=0 must be a whole number of at least 1"),
        (["--number", "few"], "--number must be a whole number, not 'few'"),
        (["--json-schema", "none.json"], "--json-schema none.json: cannot read the schema"),
        (["--cost", "none.yaml"], "none.yaml: the prices cannot be read"),
        (["--bench", "bench.json"], "--model is not for --bench; leave it out"),
        (["--compare", "a", "b"], "--model is not for --compare; leave it out"),
        (["--compare", "a"], "--compare needs 2 values (neo eval --help"),
        (["--metric", "anls"], "neo eval has no option --metric; did you mean --metrics?"),
    ],
)
def test_what_is_refused(refuse: Callable[..., str], words: list[object], more: list[str], sentence: str) -> None:
    assert sentence in refuse(*words, *more)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--compare", "a", "b"], "a: no evaluation was written here"),
        (["--compare", "a", "b", "--metrics", "cer"], "--metrics is not for --compare; leave it out"),
        (["--bench", "b.json"], "--bench needs --cost, a file of prices, and --output"),
        (["--bench", "b.json", "--cost", "p.yaml", "--output", "o", "--number", "3"], "--number is not for"),
        (["--data", "synthetic:text", "--image-root", "."], "synthetic:text: image_root and schema are for records"),
    ],
)
def test_options_that_would_have_no_effect(refuse: Callable[..., str], words: list[str], sentence: str) -> None:
    assert sentence in refuse("eval", *words)


def test_the_page_of_costs_as_json(run: Callable[..., str], tmp_path: Path) -> None:
    row = {"batch_size": 1, "first_token_s": 0.5, "step_s": 0.05}
    (tmp_path / "bench.json").write_text(json.dumps({"model": "neo-demo", "new_tokens": 10, "rows": [row]}))
    prices = Path(__file__).parents[2] / "examples" / "prices.yaml"
    words = ["eval", "--cost", prices, "--bench", tmp_path / "bench.json", "--output", tmp_path / "out"]
    assert json.loads(run(*words, "--json")) == json.loads((tmp_path / "out" / "cost.json").read_text())
    assert run(*words).startswith("# What 1 000 requests cost")


@pytest.mark.parametrize("option", ["--limit", "--tasks", "--min-pixels", "--max-pixels"])
def test_options_of_benchmarks_need_one(refuse: Callable[..., str], option: str) -> None:
    assert f"{option} goes with --benchmark" in refuse("eval", "--data", "synthetic", option, "3")


def test_data_are_needed(refuse: Callable[..., str]) -> None:
    assert "neo eval needs --data, a file of records with the expected answers" in refuse("eval")
