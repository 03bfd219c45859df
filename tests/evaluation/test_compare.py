"""Two evaluations side by side."""

from pathlib import Path

import pytest
from answering import Parrot, knows, write_colors

import neo
from neo.evaluation.compare import compare, comparison_table


def evaluated(folder: Path, name: str, right: int, *metrics: str) -> Path:
    data = write_colors(folder, 12)
    neo.evaluate(Parrot(knows(right), name), data, metrics or ("accuracy",), folder / name)
    return folder / name


def test_the_difference_and_what_changed(tmp_path: Path) -> None:
    one, other = evaluated(tmp_path, "one", 4, "accuracy", "cer"), evaluated(tmp_path, "other", 7, "accuracy", "cer")
    found = compare(one, other)
    accuracy = found["metrics"]["accuracy"]
    assert (accuracy["first"], accuracy["second"]) == pytest.approx((4 / 12, 7 / 12))
    assert accuracy["difference"] == pytest.approx(3 / 12)
    assert 0 <= accuracy["low"] < 3 / 12 < accuracy["high"] <= 6 / 12
    assert found["metrics"]["cer"]["difference"] < 0
    assert [row["question"][-2] for row in found["changed"]] == ["4", "5", "6"]
    assert (found["changed"][0]["first"], found["changed"][0]["second"]) == ("pink", "white")
    said = comparison_table(found)
    assert "# other against one on colors" in said
    assert "| accuracy | 12 | 0.3333 | 0.5833 | +0.25 (" in said
    assert "3 records changed by accuracy: 0 have a lower score, 3 a higher." in said
    back = compare(other, one)
    assert back["metrics"]["accuracy"]["difference"] == pytest.approx(-3 / 12)


def test_more_errors_are_worse(tmp_path: Path) -> None:
    data = write_colors(tmp_path, 6)
    for name, says in (("one", "pink"), ("other", "red and green")):
        neo.evaluate(Parrot(lambda text, says=says: says, name), data, ["cer"], tmp_path / name)
    found = compare(tmp_path / "one", tmp_path / "other")
    worse = [row["second_score"] - row["first_score"] for row in found["changed"]]
    assert worse == sorted(worse, reverse=True)
    assert worse[0] > 0


@pytest.mark.parametrize("metric", ["cer", "cider"])
def test_a_metric_that_one_has_of_some_records_only(tmp_path: Path, metric: str) -> None:
    """Those records count, in both."""
    records = [{"question": f"a {place}", "answer": f"a {place}", "family": "all"} for place in range(4)]
    records = [record | ({"metric": metric} if place % 2 else {}) for place, record in enumerate(records)]
    neo.evaluate(Parrot(str, "one"), records, [metric], tmp_path / "all")
    neo.evaluate(Parrot(lambda text: text.replace("3", "2"), "other"), records, ["accuracy"], tmp_path / "some")
    for first, second in (("all", "some"), ("some", "all")):
        found = compare(tmp_path / first, tmp_path / second)
        assert found["metrics"][metric]["questions"] == 2
        assert [row["question"] for row in found["changed"]] == ["a 3"]
    same = neo.evaluate(Parrot(str, "one"), [records[1], records[3]], [metric])
    assert found["metrics"][metric]["second"] == pytest.approx(same[metric])


def test_records_with_metrics_of_their_own(tmp_path: Path) -> None:
    """A metric is not asked of records that do not fit it."""
    records = [{"question": "Is it?", "answer": "yes", "metric": "yes_no"}, {"question": "What?", "answer": "a cat"}]
    neo.evaluate(Parrot(str), records, output=tmp_path / "out")
    found = compare(tmp_path / "out", tmp_path / "out")
    assert {name: one["questions"] for name, one in found["metrics"].items() if "." not in name} == {
        "accuracy": 2,
        "yes_no": 1,
    }


def test_a_model_against_itself(tmp_path: Path) -> None:
    one = evaluated(tmp_path, "one", 4)
    found = compare(one, one)
    accuracy = found["metrics"]["accuracy"]
    assert (accuracy["difference"], accuracy["low"], accuracy["high"]) == (0, 0, 0)
    assert found["changed"] == []


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    one = evaluated(tmp_path, "one", 4, "anls")
    with pytest.raises(ValueError, match=r"nowhere: no evaluation was written here, predictions\.jsonl is missing"):
        compare(one, tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no metric in common"):
        compare(one, evaluated(tmp_path, "other", 4, "exact"))
    neo.evaluate(Parrot(knows(3)), write_colors(tmp_path, 8), output=tmp_path / "fewer")
    with pytest.raises(ValueError, match="hold answers to different questions"):
        compare(one, tmp_path / "fewer")
    (one / "summary.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        compare(one, one)
