"""The thirteen benchmarks through lmms-eval: its tasks, prompts and metrics, a NEO that answers, made-up data."""

import importlib
import json
import threading
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from lmms_eval.models.registry_v2 import ModelRegistryV2
from PIL import Image
from small_tasks import make_tasks

from neo.evaluation.benchmarks import benchmarks
from neo.evaluation.harness import STYLES, Asked, BenchmarkModel, style_of
from neo.evaluation.lmms_eval import Neo, reworded, run
from neo.inference.generation import Completion
from neo.inference.sampling import Sampling

CHOICE = "Answer with the option's letter from the given choices directly."
SHORT = "Answer the question using a single word or phrase."
SAID = {
    "mmmu_val": ("A", "8"),
    "mmbench_en_dev": ("A", "B"),
    "mmvet": ("red", "red"),
    "mmstar": ("A", "B."),
    "seedbench": ("A", "A"),
    "pope": ("Yes", "yes"),
    "hallusion_bench_image": ("yes", "no"),
    "ai2d": ("A", "B"),
    "docvqa_val": ("red wine", "red mine"),
    "chartqa": ("104", "90"),
    "infovqa_val": ("red wine", "a dog"),
    "textvqa_val": ("Red.", "blue"),
    "ocrbench": ("it is RED", "blue"),
}
"""What is answered to the two questions of each task."""
EXPECTED = {
    "mmmu_val": {"mmmu_acc": 0.5},
    "mmbench_en_dev": {"gpt_eval_score": 50},
    "mmvet": {"gpt_eval_score": 50},
    "mmstar": {"average": 0.5},
    "seedbench": {"seed_image": 1, "seed_all": 1},
    "pope": {"pope_accuracy": 0.5, "pope_f1_score": 2 / 3, "pope_yes_ratio": 0.5},
    "hallusion_bench_image": {"aAcc": 50, "qAcc": 50, "fAcc": 0},
    "ai2d": {"exact_match": 0.5},
    "docvqa_val": {"anls": (1 + 7 / 8) / 2},
    "chartqa": {"relaxed_overall": 0.5, "relaxed_human_split": 1, "relaxed_augmented_split": 0},
    "infovqa_val": {"anls": 0.5},
    "textvqa_val": {"exact_match": 0.5},
    "ocrbench": {"ocrbench_accuracy": 0.001},
}
"""By hand; OCRBench counts right answers of a thousand."""
PROMPTS = {
    "mmmu_val": f"Look at <image 1> and <image 2> . What color?\nA. red\nB. blue\n{CHOICE}",
    "mmbench_en_dev": f"What color is it?\nA. red\nB. blue\n{CHOICE}",
    "mmvet": "What color is it?",
    "mmstar": f"What color is it?\nOptions: A: red, B: blue\n{CHOICE}",
    "seedbench": f"What color is it?\nA. red\nB. blue\nC. green\nD. pink\n{CHOICE}",
    "pope": f"Is there a dog?\n{SHORT}",
    "hallusion_bench_image": f"Is it red? Please answer yes or no. {SHORT}",
    "ai2d": f"What color is it?\nA. red\nB. blue\n{CHOICE}",
    "docvqa_val": f"What is written?\n{SHORT}",
    "chartqa": f"How many?\n{SHORT}",
    "infovqa_val": f"What is written?\n{SHORT}",
    "textvqa_val": f"What is written?\n{SHORT}",
    "ocrbench": f"What is written?\n{SHORT}",
}


class Judge(BaseHTTPRequestHandler):
    """Marks answers as OpenAI's models are asked to by MMVet (half right) and HallusionBench."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
        asked = asked if isinstance(asked, str) else asked[0]["text"]
        said = "0.5" if "Correctness" in asked else "correct" if "answer:yes" in asked else "incorrect"
        choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        body = json.dumps({"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


class Scripted(BenchmarkModel):
    """Asks the model in earnest, notes what was asked and says what the test wants to be said."""

    def __init__(self) -> None:
        super().__init__("neo-demo", max_new_tokens=2, min_pixels=4096, max_pixels=65536, device="cpu")
        self.asked: dict[str, list[Asked]] = {}

    def answers(self, questions: Iterable[Asked]) -> Iterator[Completion]:
        questions = list(questions)
        for question, answer in zip(questions, super().answers(questions), strict=True):
            assert answer.prompt_tokens > 4
            known = self.asked.setdefault(question.task, [])
            known.append(question)
            yield replace(answer, text=SAID[question.task][len(known) - 1])


@pytest.fixture(scope="module")
def model() -> Neo:
    neo = Neo("neo-demo", device="cpu", max_new_tokens=2)
    neo.model = Scripted()
    return neo


@pytest.fixture(scope="module")
def scores(model: Neo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, float]]]:
    """Of all thirteen, run once."""
    judge = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    threading.Thread(target=judge.serve_forever, daemon=True).start()
    folder = tmp_path_factory.mktemp("benchmarks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_URL", f"http://127.0.0.1:{judge.server_port}")
        patch.setenv("OPENAI_API_KEY", "none")
        patch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
        yield dict(run(model, list(SAID), folder / "out", own_tasks=make_tasks(folder)))
    judge.shutdown()
    judge.server_close()


@pytest.mark.parametrize("task", EXPECTED)
def test_scores_are_those_of_the_harness(scores: dict[str, dict[str, float]], task: str) -> None:
    assert scores[task]["questions"] == 2
    assert {name: scores[task][name] for name in EXPECTED[task]} == pytest.approx(EXPECTED[task])


def test_all_thirteen_have_their_score(scores: dict[str, dict[str, float]]) -> None:
    for one in benchmarks().values():
        names = one.lmms_eval["score"]
        assert {names} if isinstance(names, str) else set(names) <= scores[one.task("lmms-eval")].keys()


@pytest.mark.parametrize("task", PROMPTS)
def test_questions_are_put_as_in_the_published_runs(scores: dict[str, dict[str, float]], model: Neo, task: str) -> None:
    assert isinstance(model.model, Scripted)
    asked = model.model.asked[task][0]
    assert asked.text == PROMPTS[task]
    assert len(asked.pictures) == (2 if task == "mmmu_val" else 1)


@pytest.mark.parametrize("name", benchmarks())
def test_prompts_are_those_that_the_table_tells(name: str) -> None:
    one = benchmarks()[name]
    prompt = one.prompt.rpartition("in lmms-eval, which compares whole answers: ")[2]
    assert PROMPTS[one.task("lmms-eval")].endswith("?" if prompt == "none" else prompt)


def test_open_questions_of_mmmu(scores: dict[str, dict[str, float]], model: Neo) -> None:
    assert isinstance(model.model, Scripted)
    assert model.model.asked["mmmu_val"][1].text == "<image 1> How many?\nAnswer the question directly."


def test_lmms_eval_finds_neo_by_its_entry_point() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    module, _, name = project["project"]["entry-points"]["lmms_eval.models"]["neo"].partition(":")
    registry = ModelRegistryV2()
    registry.register_manifest(getattr(importlib.import_module(module), name)())
    assert registry.get_model_class("neo") is Neo


def test_pictures_before_the_text_with_the_published_areas() -> None:
    model = BenchmarkModel("neo-demo", device="cpu")
    small = Image.new("RGB", (96, 64), "red")

    def grids(task: str, *pictures: Image.Image) -> list[list[int]]:
        return model.request(Asked(task, "What?", pictures, max_new_tokens=2)).prompt.image_grid_hw.tolist()

    def area(task: str) -> int:
        ((rows, columns),) = grids(task, small)
        return rows * columns * 256

    assert 1280 * 1024 <= area("docvqa_val") < 1.2 * 1280 * 1024
    assert 256 * 256 <= area("ocrbench") < 1.2 * 256 * 256
    large = Image.new("RGB", (1024, 1280), "red")
    assert grids("docvqa_val", large) == [[80, 64]]
    # MMMU's first picture is doubled, to 5 242 880 pixels, then scaled to the largest area.
    first, second = grids("mmmu_val", large, large)
    assert second == [80, 64]
    assert 0.95 * 4096 * 1024 < first[0] * first[1] * 256 <= 4096 * 1024


def test_neo_ov_is_asked_in_its_own_way() -> None:
    model = BenchmarkModel("neo-demo", style="neo-ov", device="cpu")
    request = model.request(Asked("mmstar", "What?", max_new_tokens=4))
    assert request.sampling == Sampling(temperature=0.6, top_p=0.95, top_k=20, repetition_penalty=1.05, seed=0)
    assert "Reason step by step." in model.chat.processor.decode(request.prompt.input_ids)
    assert model.bounds("mmmu_val") == (1003520, 4014080)
    assert model.bounds("docvqa_val") == (1280 * 1024, 16384 * 1024)
    text = reworded("mmmu_val", f"What?\nA. a\n\n{CHOICE}", STYLES["neo-ov"])
    assert text.startswith("Answer the preceding multiple choice question.")
    assert text.endswith("before answering.\n\nWhat?\nA. a")
    assert [style_of(name) for name in ("NEO-ov-2B-SFT", "Paranioar/NEO1_5-9B-SFT", "NEO-2B-SFT")] == [
        "neo-ov",
        "neo-ov",
        "neo",
    ]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"prompts": "mine"}, r"prompts='mine' must be published or harness"),
        ({"style": "neo2"}, r"style='neo2' must be auto, neo or neo-ov"),
        ({"max_new_tokens": 0}, r"max_new_tokens=0 must be a whole number of at least 1"),
        ({"batch_size": 0}, r"batch_size=0 must be a whole number of at least 1"),
        ({"pretrained": "nobody/nothing"}, r"nobody/nothing"),
        ({"color": "red"}, r"color is not an option"),
    ],
)
def test_mistakes_are_told(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Neo(**options)


def test_what_neo_does_not_answer_is_told(model: Neo) -> None:
    for refused in (model.loglikelihood, model.generate_until_multi_round):
        with pytest.raises(ValueError, match="not supported"):
            refused([])


def test_a_judge_that_cannot_be_asked_is_told(model: Neo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("OPENAI_API_KEY", "AZURE_API_KEY"):
        monkeypatch.delenv(key, raising=False)
    with pytest.raises(ValueError, match=r"mmvet: a language model marks its answers; set OPENAI_API_KEY"):
        dict(run(model, ["mmvet"], tmp_path / "out"))


def test_an_unknown_task_is_told(model: Neo, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("task: mine\ndataset_path: parquet\n")
    with pytest.raises(ValueError, match=r"lmms-eval has no task 'nine'.*mine"):
        dict(run(model, ["nine"], tmp_path / "out", own_tasks=tmp_path))
