"""The adapter for VLMEvalKit, against a stand-in with its names and signatures: `kit` in conftest.py."""

import importlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from neo.cli import main
from neo.evaluation.benchmarks import benchmarks
from neo.evaluation.harness import STYLES, Asked, BenchmarkModel
from neo.evaluation.table import read
from neo.inference.generation import Completion

LETTER = "Answer with the option's letter from the given choices directly."
SHORT = "Answer the question using a single word or phrase."
PROMPTS = {
    "MMMU_DEV_VAL": ["Think.\nWhich?\nA. red\nB. 2\n" + LETTER, "How many?\nAnswer the question directly."],
    "MMVet": ["What is it?", "Why?"],
    "POPE": ["Is it red?", "Is it blue?"],
    "DocVQA_VAL": [f"What is written?\n{SHORT}", f"Who?\n{SHORT}"],
    "OCRBench": [f"What is written?\n{SHORT}", f"Who?\n{SHORT}"],
}
"""The questions of the two rows of each data set in the words of the published runs."""


class Scripted(BenchmarkModel):
    """Asks the model in earnest, notes what was asked and says "A"."""

    def __init__(self) -> None:
        super().__init__("neo-demo", max_new_tokens=1, min_pixels=4096, max_pixels=65536, batch_size=2, device="cpu")
        self.asked: list[Asked] = []

    def answers(self, questions: Iterable[Asked]) -> Iterator[Completion]:
        for question in questions:
            self.asked.append(question)
            for answer in super().answers([question]):
                yield replace(answer, text="A")


@pytest.fixture
def model(kit: Any) -> Any:
    neo = kit.Neo("neo-demo", device="cpu")
    neo.model = Scripted()
    return neo


def test_scores_are_those_of_the_harness_by_their_names(
    kit: Any, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    scores = dict(kit.run(model, list(PROMPTS), tmp_path / "files"))
    assert {task: row["questions"] for task, row in scores.items()} == dict.fromkeys(PROMPTS, 2)
    assert scores["POPE"] == {
        "Overall Overall": 50,
        "Overall acc": 1,
        "random Overall": 0,
        "random acc": 2,
        "questions": 2,
    }
    for one in benchmarks().values():
        if (task := one.task("vlmevalkit")) in PROMPTS:
            assert one.score("vlmevalkit", scores[task]) == 50


@pytest.mark.parametrize("task", PROMPTS)
def test_questions_are_put_as_in_the_published_runs(
    kit: Any, model: Any, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    dict(kit.run(model, [task], tmp_path / "files"))
    asked = sorted(model.model.asked, key=lambda one: PROMPTS[task].index(one.text))
    assert [one.text for one in asked] == PROMPTS[task]
    assert [one.task for one in asked] == [task, task]
    assert [len(one.pictures) for one in asked] == ([2, 1] if task == "MMMU_DEV_VAL" else [1, 1])


def test_questions_in_the_harness_own_words(kit: Any, model: Any, tmp_path: Path) -> None:
    model.prompts = "harness"
    ((_, scores),) = kit.run(model, ["DocVQA_VAL"], tmp_path / "files", limit=1)
    assert scores["questions"] == 1
    assert [one.text for one in model.model.asked] == ["Question: What is written?"]


def test_only_the_thirteen_are_worded_here(model: Any) -> None:
    assert model.use_custom_prompt("POPE")
    assert not model.use_custom_prompt("MME")


@pytest.mark.parametrize(
    ("key", "judges"),
    [
        (None, {"MMMU_DEV_VAL": "exact_matching", "POPE": "exact_matching", "DocVQA_VAL": None}),
        ("sk-none", {"MMMU_DEV_VAL": "chatgpt-0125", "MMVet": "gpt-4-turbo", "DocVQA_VAL": None}),
    ],
)
def test_who_marks_the_answers(
    kit: Any,
    model: Any,
    key: str | None,
    judges: dict[str, str | None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if key:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    dict(kit.run(model, list(judges), tmp_path / "files"))
    assert {task: kit.judge(task) for task in judges} == judges
    assert judges == importlib.import_module("vlmeval.dataset").JUDGES


def test_among_the_harness_models(kit: Any) -> None:
    kit.register("mine", "neo-demo", device="cpu", prompts="harness")
    made = importlib.import_module("vlmeval.config").supported_VLM["mine"]()
    assert isinstance(made, kit.Neo)
    assert (made.prompts, made.model.name) == ("harness", "neo-demo")
    assert made.generate([{"type": "text", "value": "What is it?"}]) != ""


def test_from_the_command_line(
    kit: Any, run: Callable[..., str], tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STYLES, "neo", replace(STYLES["neo"], max_new_tokens=2))
    results = tmp_path / "results"
    words = ["--harness", "vlmevalkit", "--model", tiny_checkpoint, "--device", "cpu", "--output", results]
    said = run("eval", "--benchmark", "DocVQA,MMMU", *words, "--min-pixels", 4096, "--max-pixels", 65536)
    assert said == ("DocVQA_VAL: 0.0  (Overall 0; 2 questions)\nMMMU_DEV_VAL: 0.0  (Overall 0, Art 0; 2 questions)\n")
    docvqa, mmmu = sorted(read(results), key=lambda one: one.task)
    assert (docvqa.score, docvqa.harness) == (0, "vlmevalkit")
    assert mmmu.settings is not None
    assert mmmu.settings["judge"] == {"DocVQA_VAL": None, "MMMU_DEV_VAL": "exact_matching"}
    assert json.loads(json.dumps(mmmu.settings["pixels"])) == {task: [4096, 65536] for task in mmmu.settings["judge"]}
    assert f"| **{tiny_checkpoint}**, measured by vlmevalkit | 0.0 |" in run("eval", "--table", results)


@pytest.mark.parametrize(
    ("benchmark", "sentence"),
    [
        ("DocVQA_TRAIN", "VLMEvalKit has no data set 'DocVQA_TRAIN'; did you mean DocVQA_VAL?"),
        ("MMVet", "MMVet: a language model marks its answers; set OPENAI_API_KEY"),
        ("POPE", "gone.png"),
    ],
)
def test_mistakes_are_told(
    kit: Any, capsys: pytest.CaptureFixture[str], tiny_checkpoint: Path, tmp_path: Path, benchmark: str, sentence: str
) -> None:
    importlib.import_module("vlmeval.dataset").TABLES["POPE"]["image_path"] = "gone.png"
    words = ["--harness", "vlmevalkit", "--model", tiny_checkpoint, "--device", "cpu", "--output", tmp_path / "out"]
    assert main(["eval", "--benchmark", benchmark, *map(str, words)]) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]


def test_unknown_prompts_are_told(kit: Any) -> None:
    with pytest.raises(ValueError, match=r"prompts='mine' must be published or harness"):
        kit.Neo(prompts="mine")


def test_without_the_harness(refuse: Callable[..., str]) -> None:
    said = refuse("eval", "--benchmark", "DocVQA", "--harness", "vlmevalkit", "--output", "out")
    assert said.startswith("neo: --harness vlmevalkit needs vlmeval: install VLMEvalKit from github.com")
