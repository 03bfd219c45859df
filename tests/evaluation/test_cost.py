"""What things cost, worked out by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
from answering import Parrot
from PIL import Image

import neo
from neo.evaluation.cost import break_even, cost, cost_table, read_prices, write_costs

PRICES = """
currency: EUR
machine: {name: a box, per_hour: 3.6}
request: {input_tokens: 1000, output_tokens: 100}
apis:
  dear: {per_million_input_tokens: 5, per_million_output_tokens: 50}
  cheap: {per_million_input_tokens: 0.01, per_million_output_tokens: 0.1}
"""
BENCH: dict[str, Any] = {
    "model": "neo-demo",
    "new_tokens": 10,
    "rows": [
        {"batch_size": 1, "first_token_s": 0.5, "step_s": 0.05},
        {"batch_size": 4, "first_token_s": 1.0, "step_s": 0.1},
    ],
}
EXAMPLE = Path(__file__).parents[2] / "examples" / "prices.yaml"


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "prices.yaml"
    path.write_text(PRICES)
    return path


def test_an_answer_on_a_machine_and_from_an_api(prices: Path) -> None:
    rows = [{"machine_seconds": 1.0, "prompt_tokens": 1000, "new_tokens": 10}] * 2
    rows += [{"machine_seconds": 4.0, "prompt_tokens": 4000, "new_tokens": 40}] * 2
    # 2.5 s each at 3.6 an hour: 0.0025 each
    assert cost(rows, "mine", read_prices(prices))["per_1000"] == pytest.approx(2.5)
    # 2 500 tokens at 5 and 25 at 50 for a million
    assert cost(rows, "dear", read_prices(prices))["per_1000"] == pytest.approx(1000 * (0.0125 + 0.00125))
    with pytest.raises(ValueError, match="dear: it is paid by the token, but does not tell"):
        cost([rows[0] | {"new_tokens": None}], "dear", read_prices(prices))


def test_a_model_behind_a_server_is_priced_by_its_name(prices: Path) -> None:
    rows = [{"machine_seconds": 1.0, "prompt_tokens": 1000, "new_tokens": 10}]
    found = cost(rows, "openai:https://api.example/v1#dear", read_prices(prices))
    assert found["per_1000"] == pytest.approx(1000 * (0.005 + 0.0005))
    for model in ("openai:https://api.example/v1#other", "openai:https://api.example/v1"):
        with pytest.raises(ValueError, match=rf"^{model}: the prices' 'apis' do not name this model"):
            cost(rows, model, read_prices(prices))


def test_from_where_on_a_machine_is_cheaper(prices: Path) -> None:
    found = break_even(BENCH, read_prices(prices))
    # 1 in 1 s, 4 in 2 s
    assert [row["requests_per_hour"] for row in found["machine"]] == pytest.approx([3600, 7200])
    assert [row["per_1000"] for row in found["machine"]] == pytest.approx([1.0, 0.5])
    # dear: 0.005 + 0.005 a request; a month of the box is 3.6 x 730 = 2 628
    assert found["apis"]["dear"] == pytest.approx({"per_1000": 10, "break_even": 262_800})
    # cheap: 0.00002 a request, less than the box's 0.0005 at full load
    assert found["apis"]["cheap"]["break_even"] is None
    assert found["most_a_month"] == pytest.approx(7200 * 730)
    said = cost_table(found)
    assert "| dear | 10 | 262,800 |" in said
    assert "| cheap | 0.02 | never |" in said
    assert "| 4 | 7,200 | 0.5 |" in said


def test_the_page(prices: Path, tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text(json.dumps(BENCH))
    costs = write_costs(tmp_path / "bench.json", prices, tmp_path / "cost")
    assert (tmp_path / "cost" / "cost.md").read_text().startswith(cost_table(costs))
    assert json.loads((tmp_path / "cost" / "cost.json").read_text()) == costs
    assert costs["apis"]["dear"]["per_1000"] == pytest.approx(10)
    with Image.open(tmp_path / "cost" / "cost.png") as drawn:
        assert drawn.size == (960, 600)


def test_with_an_evaluation(prices: Path) -> None:
    result = neo.evaluate(Parrot(str, "dear"), [{"question": "What?", "answer": "What?"}], prices=prices)
    assert result.summary["cost"]["per_1000"] == pytest.approx(1000 * (10 * 5 + 5 * 50) / 1e6)
    assert "Cost of 1 000 questions: 0.3 EUR (10 tokens of a question and 5 of an answer)." in str(result)


def test_a_price_that_is_missing_is_told_before_anything_is_asked(prices: Path) -> None:
    with pytest.raises(ValueError, match="do not name this model"):
        neo.evaluate("openai:http://127.0.0.1:1/v1#other", [{"question": "What?", "answer": "a"}], prices=prices)


def test_the_example() -> None:
    assert read_prices(EXAMPLE).apis


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (PRICES.replace("per_hour: 3.6", "per_hour: 0"), "machine: per_hour must be a number above 0, not 0"),
        ("a: [", r"prices\.yaml: the prices cannot be read"),
        ("[1]", "'machine' must be there"),
        (PRICES.replace("per_hour: 3.6", "per_hour: much"), "machine: per_hour must be a number above 0, not 'much'"),
        (PRICES.replace("5, per_million_output_tokens: 50", "-5"), "apis, dear: per_million_input_tokens must be a n"),
        (PRICES.replace("request:", "requests:"), "'request' must be there"),
    ],
)
def test_prices_that_are_none(content: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text(content)
    with pytest.raises(ValueError, match=sentence):
        read_prices(tmp_path / "prices.yaml")


def test_measurements_that_are_none(prices: Path, tmp_path: Path) -> None:
    bench = tmp_path / "bench.json"
    with pytest.raises(ValueError, match=r"bench\.json: what neo bench --json printed cannot be read"):
        write_costs(bench, prices, tmp_path)
    row = BENCH["rows"][0]
    for content, sentence in (
        ({}, "these are not the measurements that neo bench --json prints"),
        ([], "these are not the measurements that neo bench --json prints"),
        (BENCH | {"model": None}, "these are not the measurements that neo bench --json prints"),
        (BENCH | {"rows": 1}, "these are not the measurements that neo bench --json prints"),
        (BENCH | {"rows": []}, "neo bench measured no batch size"),
        (BENCH | {"rows": [{}]}, "rows: batch_size must be a number above 0, not None"),
        (BENCH | {"rows": [3]}, "rows: batch_size must be a number above 0, not None"),
        (BENCH | {"rows": [row | {"step_s": "a"}]}, "rows: step_s must be a number above 0, not 'a'"),
        (BENCH | {"rows": [row | {"step_s": 0}]}, "rows: step_s must be a number above 0, not 0"),
        (BENCH | {"new_tokens": 0}, "new_tokens must be a number above 0, not 0"),
    ):
        bench.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=rf"bench\.json: {sentence}"):
            write_costs(bench, prices, tmp_path)


def test_a_file_where_the_page_should_be(prices: Path, tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text(json.dumps(BENCH))
    with pytest.raises(ValueError, match=r"prices\.yaml: there can be no such folder \(File exists\)"):
        write_costs(tmp_path / "bench.json", prices, prices)
