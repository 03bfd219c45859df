import json
from pathlib import Path

from neo.synthetic import generate
from neo.training.family_report import FamilyScore, answers, family_report, markdown
from neo.training.start import load


def test_report_is_written(pt: Path, tmp_path: Path) -> None:
    model, processor = load(pt)
    scores = family_report(model, processor, tmp_path, samples=3, families=("color", "text"), batch_size=2)
    assert [score.family for score in scores] == ["color", "text"]
    written = json.loads((tmp_path / "accuracy.json").read_text())
    assert [row["asked"] for row in written["families"]] == [3, 3]
    assert len(written["families"][0]["mistakes"]) == 3 - scores[0].right
    assert (tmp_path / "accuracy.md").read_text() == markdown(scores)


def test_answers_do_not_depend_on_the_batch(pt: Path) -> None:
    model, processor = load(pt)
    samples = [generate(0, k, "test", {"color": 1.0, "text": 1.0}) for k in range(5)]
    assert answers(model, processor, samples, 5, 8) == answers(model, processor, samples, 1, 8)


def test_markdown() -> None:
    assert "| color | 3 | 4 | 75.0% |" in markdown([FamilyScore("color", 3, 4, [])])
