"""A whole evaluation: numbers, files, interruption, and what a second run does."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from answering import Parrot, knows, write_colors

import neo
from neo.evaluation.answerer import NeoAnswerer
from neo.evaluation.identity import checkpoint_of
from neo.evaluation.result import read_result
from neo.evaluation.summary import table
from neo.model import names

FILES = {"predictions.jsonl", "report.html", "summary.json", "table.md"}
TIMES = ("seconds", "seconds_to_first_token", "machine_seconds")


def without_times(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in TIMES} for line in lines]


def test_numbers_by_family_and_over_all(tmp_path: Path) -> None:
    result = neo.evaluate(Parrot(knows(4)), write_colors(tmp_path), ["accuracy", "cer", "latency", "memory"])
    assert result["accuracy"] == pytest.approx(4 / 6)
    accuracy = result.summary["metrics"]["accuracy"]
    assert {name: one["value"] for name, one in accuracy["families"].items()} == pytest.approx(
        {"family 0": 2 / 3, "family 1": 2 / 3}
    )
    assert accuracy["all"]["low"] < 4 / 6 < accuracy["all"]["high"]
    # white and orange are called pink: 4 and 5 edits of 3 + 5 + 4 + 5 + 5 + 6 letters
    assert result["cer"] == pytest.approx((4 + 5) / 28)
    assert result.summary["latency"]["first_token"]["p50"]["value"] == 0.25
    assert result.summary["latency"]["total"]["p95"]["value"] == pytest.approx(0.5 + 24 / 100)
    assert result.summary["memory"]["peak_bytes"] == 3 * 2**30
    assert result.summary["cut_off"] == 0
    assert [row["scores"]["accuracy"] for row in result.rows] == [1, 1, 1, 1, 0, 0]
    said = str(result)
    assert "| family 0 | 3 | 66.7% (" in said
    assert "| all | 6 | 66.7% (" in said
    assert "Peak memory: 3.00 GiB." in said
    assert "| to the first token | 0.25 s | 0.25 s |" in said


def test_measures_alone_come_with_accuracy(tmp_path: Path) -> None:
    result = neo.evaluate(Parrot(knows(6)), write_colors(tmp_path), ["latency"], tmp_path / "out")
    assert list(result.summary["metrics"]) == ["accuracy"]
    assert "latency" in result.summary


def test_both_names_are_one_function() -> None:
    assert neo.evaluate is neo.evaluate_model


def test_each_record_has_its_own_metric() -> None:
    records = [
        {"question": "Is it red?", "answer": "yes", "metric": "yes_no"},
        {"question": "Which?", "answer": "b", "choices": ["cat", "dog"]},
        {"question": "What?", "answer": "Red"},
        {"question": "Read it.", "answer": "abcd", "metric": "cer"},
    ]
    says = {"Is it red?": "Yes, it is.", "What?": "red.", "Read it.": "abcx"}
    result = neo.evaluate(Parrot(lambda text: says.get(text, "A")), records)
    metrics = result.summary["metrics"]
    assert list(metrics)[:2] == ["accuracy", "yes_no"]
    assert result["accuracy"] == pytest.approx(2 / 3)  # all but the one that is judged by its errors
    assert metrics["accuracy"]["all"]["questions"] == 3
    assert result["yes_no.f1"] == 1
    assert result["cer"] == pytest.approx(1 / 4)
    assert [list(row["scores"]) for row in result.rows] == [["accuracy", "yes_no"], ["accuracy"], ["accuracy"], ["cer"]]


def test_the_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = neo.evaluate(Parrot(knows(4)), write_colors(tmp_path), output=out, batch_size=4)
    assert {path.name for path in out.iterdir()} == FILES
    assert (out / "table.md").read_text() == table(result.summary)
    again = read_result(out)
    assert again.summary == result.summary
    assert again.rows == result.rows
    first = again.rows[0]
    assert first["where"].endswith("colors.jsonl, line 1")
    assert (first["question"], first["expected"], first["answer"]) == ("What color is picture 0?", ["red"], "red")


def test_answers_may_hold_what_ends_a_line_elsewhere(tmp_path: Path) -> None:
    said = "one\u2028two\u2029three\x85four\x0cfive"
    neo.evaluate(Parrot(lambda text: said), [{"question": "What?", "answer": "a"}], output=tmp_path)
    assert read_result(tmp_path).rows[0]["answer"] == said


def test_answers_that_are_there_are_not_asked_for_again(tmp_path: Path) -> None:
    data, out = write_colors(tmp_path), tmp_path / "out"
    before = neo.evaluate(Parrot(knows(4)), data, ["accuracy", "memory"], out)
    parrot = Parrot(knows(6))
    result = neo.evaluate(parrot, data, ["anls", "memory"], out)
    assert not parrot.asked
    assert list(result.summary["metrics"]) == ["anls"]
    assert result.summary["memory"] == before.summary["memory"]
    with pytest.raises(ValueError, match=r"holds answers with another max_new_tokens; give another output, or overwr"):
        neo.evaluate(parrot, data, output=out, max_new_tokens=7)
    with pytest.raises(ValueError, match="another model"):
        neo.evaluate(Parrot(knows(6), "other"), data, output=out)
    assert neo.evaluate(parrot, data, output=out, overwrite=True)["accuracy"] == 1
    assert len(parrot.asked) == 6


def test_a_model_that_was_trained_on_is_asked_again(tmp_path: Path, tiny_checkpoint: Path) -> None:
    model, data, out = tmp_path / "model", write_colors(tmp_path, 2), tmp_path / "out"
    model.mkdir()
    for file in tiny_checkpoint.iterdir():
        (model / file.name).symlink_to(file)
    neo.evaluate(model, data, output=out, max_new_tokens=2, device="cpu")
    neo.evaluate(str(model), data, output=out, max_new_tokens=2, device="cpu")
    (model / "trainer.json").write_text("{}")
    os.utime(model / "trainer.json", (2e9, 2e9))
    with pytest.raises(ValueError, match="with another checkpoint;"):
        neo.evaluate(model, data, output=out, max_new_tokens=2, device="cpu")


def test_models_in_memory_are_told_by_their_weights(tmp_path: Path, tiny_checkpoint: Path) -> None:
    data, out = write_colors(tmp_path, 2), tmp_path / "out"
    chat = neo.load_model(tiny_checkpoint, device="cpu")
    before = neo.evaluate(chat, data, output=out, max_new_tokens=2)
    again = neo.evaluate(neo.load_model(tiny_checkpoint, device="cpu"), data, output=out, max_new_tokens=2)
    assert again.rows == before.rows  # the same model: nothing is asked
    int8 = neo.load_model(tiny_checkpoint, device="cpu", quantization="int8")
    less = neo.load_model(tiny_checkpoint, device="cpu", max_pixels=32768)
    for other in (int8, NeoAnswerer(int8), less):
        with pytest.raises(ValueError, match="with another checkpoint;"):
            neo.evaluate(other, data, output=out, max_new_tokens=2)
    with torch.no_grad():
        chat.model.model.language_model.norm.weight += 0.01
    with pytest.raises(ValueError, match="with another checkpoint;"):
        neo.evaluate(chat, data, output=out, max_new_tokens=2)


def test_a_name_is_the_folder_that_it_means(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_checkpoint, tmp_path / "model")
    data, out = write_colors(tmp_path, 2), tmp_path / "out"
    monkeypatch.setenv("HOME", str(tmp_path))
    neo.evaluate("~/model", data, output=out, max_new_tokens=2, device="cpu")
    os.utime(tmp_path / "model" / "config.json", (2e9, 2e9))
    with pytest.raises(ValueError, match="with another checkpoint;"):
        neo.evaluate("~/model", data, output=out, max_new_tokens=2, device="cpu")
    assert checkpoint_of("neo-demo") == checkpoint_of(names.CHECKPOINTS / "neo-demo")


@pytest.mark.parametrize("model", ["neo-dmo", None])
def test_what_is_overwritten_stays_until_the_model_is_there(tmp_path: Path, model: Any) -> None:
    data, out = write_colors(tmp_path), tmp_path / "out"
    before = neo.evaluate(Parrot(knows(4)), data, output=out)
    with pytest.raises(ValueError, match=r"unknown model 'neo-dmo'|model=None is no model: give a name"):
        neo.evaluate(model, data, output=out, overwrite=True)
    assert read_result(out).rows == before.rows


def test_a_run_that_writes_is_not_overwritten(tmp_path: Path) -> None:
    data, out = write_colors(tmp_path), tmp_path / "out"

    def says(text: str) -> str:
        with pytest.raises(ValueError, match="another run is writing it"):
            neo.evaluate(Parrot(knows(4)), data, output=out, overwrite=True)
        return "red"

    assert neo.evaluate(Parrot(says), data, output=out)["accuracy"] == pytest.approx(1 / 6)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file: there can be no such folder \(File exists\); give another output"):
        neo.evaluate(Parrot(str), [{"question": "What?", "answer": "a"}], output=tmp_path / "file")
    (tmp_path / "predictions.jsonl").write_text("{}\n")
    for foreign in ("{}", "[]"):
        (tmp_path / "summary.json").write_text(foreign)
        with pytest.raises(ValueError, match=r"summary\.json is not that of an evaluation"):
            read_result(tmp_path)


class Interrupted(Exception):
    pass


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    data = write_colors(tmp_path)
    neo.evaluate(Parrot(knows(4)), data, output=tmp_path / "whole", batch_size=2)

    def fails(text: str) -> str:
        if "picture 3" in text:
            raise Interrupted
        return knows(4)(text)

    with pytest.raises(Interrupted):
        neo.evaluate(Parrot(fails), data, output=tmp_path / "broken", batch_size=2)
    part = tmp_path / "broken" / "predictions.jsonl.part"
    with part.open("a") as file:
        file.write('{"where": "a line that was cut o')
    with pytest.raises(ValueError, match="has not been finished; give its command again"):
        read_result(tmp_path / "broken")
    parrot = Parrot(knows(4))
    neo.evaluate(parrot, data, output=tmp_path / "broken", batch_size=2)
    assert [text[-2] for text in parrot.asked] == ["2", "3", "4", "5"]
    assert without_times(tmp_path / "broken") == without_times(tmp_path / "whole")
    assert {path.name for path in (tmp_path / "broken").iterdir()} == FILES
    one, other = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("whole", "broken"))
    assert one == other


def test_the_peak_of_memory_is_that_of_all_runs(tmp_path: Path) -> None:
    data = write_colors(tmp_path)

    class Growing(Parrot):
        def peak_memory(self) -> int:
            if len(self.asked) > 4:
                raise Interrupted
            return 2**30 * len(self.asked)

    with pytest.raises(Interrupted):
        neo.evaluate(Growing(knows(4)), data, output=tmp_path, batch_size=2)
    result = neo.evaluate(Growing(knows(4)), data, ["memory"], tmp_path, batch_size=2)
    assert result.summary["memory"]["peak_bytes"] == 4 * 2**30


KILLED = """
import sys, time
from answering import Parrot, knows
import neo
def slow(text):
    time.sleep(0.2 if "picture 0" not in text else 0)
    return knows(4)(text)
neo.evaluate(Parrot(slow), sys.argv[1], output=sys.argv[2], batch_size=1)
"""


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    data, out = write_colors(tmp_path, 30), tmp_path / "out"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(data), str(out)], env=environment)
    part = out / "predictions.jsonl.part"
    while not (part.exists() and part.read_bytes().count(b"\n") >= 3):  # what it is, and two answers
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = part.read_bytes().count(b"\n") - 1
    parrot = Parrot(knows(4))
    neo.evaluate(parrot, data, output=out, batch_size=1)
    assert len(parrot.asked) == 30 - kept
    neo.evaluate(Parrot(knows(4)), data, output=tmp_path / "whole", batch_size=1)
    assert without_times(out) == without_times(tmp_path / "whole")


def test_what_cannot_be_answered_is_named(tmp_path: Path, tiny_checkpoint: Path) -> None:
    data = write_colors(tmp_path)
    (tmp_path / "4.png").unlink()
    with pytest.raises(ValueError, match=r"colors\.jsonl, line 5: .*4\.png"):
        neo.evaluate(tiny_checkpoint, data, max_new_tokens=2, device="cpu")


def test_what_is_wrong_is_told_before_anything_is_asked(tmp_path: Path) -> None:
    parrot, records = Parrot(str), [{"question": "What?", "answer": "a"}, {"question": "Where?", "answer": "there"}]
    for metrics, sentence in (
        (["json"], "metric json needs JSON as the answer"),
        (["accuracy", "speed"], "there is no metric 'speed'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            neo.evaluate(parrot, records, metrics)
    nowhere = [{"question": "What?", "answer": "{}", "metric": "json", "schema": {"$ref": "#/nowhere"}}]
    with pytest.raises(ValueError, match="the schema is not a JSON schema"):
        neo.evaluate(parrot, nowhere)
    with pytest.raises(ValueError, match="at least two records"):
        neo.evaluate(parrot, records[:1], ["cider"])
    with pytest.raises(ValueError, match="batch_size=0 must be a whole number of at least 1"):
        neo.evaluate(parrot, records, batch_size=0)
    with pytest.raises(ValueError, match="there is no such file of records"):
        neo.evaluate(parrot, str(tmp_path / "none.jsonl"))
    assert not parrot.asked


def test_answers_that_were_cut_off_are_counted() -> None:
    result = neo.evaluate(Parrot(lambda text: "x" * 30), [{"question": "What?", "answer": "a"}])
    assert result.summary["cut_off"] == 1
    assert "Answers that were cut off at the limit of new tokens: 1." in str(result)


def test_drawn_pictures(tiny_checkpoint: Path) -> None:
    chat = neo.load_model(tiny_checkpoint, device="cpu")
    result = neo.evaluate(chat, "synthetic:text,number", number=2, max_new_tokens=4)
    assert list(result.summary["families"].values()) == [2, 2, 2]
    assert result.summary["tokens"]["new"] <= 4
