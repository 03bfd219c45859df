"""VLMEvalKit asks a NEO: a model of its interface, and its data sets run from here.

`register` puts a NEO among VLMEvalKit's models, so that its own commands run it, too.
"""

import os
import re
import string
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

from vlmeval.dataset import DATASET_TYPE, SUPPORTED_DATASETS, build_dataset
from vlmeval.inference import infer_data_job
from vlmeval.vlm.base import BaseModel

from neo.evaluation.benchmarks import benchmark, check_judge
from neo.evaluation.harness import Asked, BenchmarkModel, published_prompt
from neo.inference.chat import ChatModel
from neo.suggestion import suggestion

KINDS = {"MCQ": "choice", "Y/N": "yes/no"}
"""VLMEvalKit's types of questions; the others are open."""


class Neo(BaseModel):
    """A NEO as VLMEvalKit's model.

    Args:
        pretrained: as `neo.load_model` takes it, or what it returned.
        prompts: "published", the words of the published runs, or "harness", VLMEvalKit's own.
        options: of `BenchmarkModel`, and of `neo.load_model`.
    """

    is_api = True
    """Several questions at a time, from threads, which is how VLMEvalKit asks what it believes to be a server."""
    allowed_types = ["text", "image"]

    def __init__(self, pretrained: str | ChatModel = "neo-demo", prompts: str = "published", **options: Any) -> None:
        super().__init__()
        if prompts not in ("published", "harness"):
            raise ValueError(f"prompts={prompts!r} must be published or harness")
        self.prompts = prompts
        self.model = BenchmarkModel(pretrained, **options)
        self.error: Exception | None = None
        """The first that was raised while answering; VLMEvalKit goes on after some."""

    def use_custom_prompt(self, dataset: str) -> bool:
        """Whether `build_prompt` words the questions: those of the thirteen benchmarks."""
        return self.prompts == "published" and benchmark(dataset, "vlmevalkit") is not None

    def build_prompt(self, line: Any, dataset: str) -> list[dict[str, str]]:
        """A row of a data set as a message: its pictures, then the question."""
        given = {name: str(cell) for name, cell in line.items() if cell is not None and cell == cell}  # nan: empty
        choices = {letter: given[letter] for letter in string.ascii_uppercase if letter in given}
        kind = KINDS.get(DATASET_TYPE(dataset), "open")
        text = published_prompt(dataset, given["question"], choices, kind, self.model.style, given.get("hint", ""))
        pictures = [{"type": "image", "value": path} for path in self.dump_image(line, dataset)]
        return [*pictures, {"type": "text", "value": text}]

    def generate_inner(self, message: Sequence[Mapping[str, str]], dataset: str | None = None) -> str:
        """The answer to a message of texts and paths of pictures."""
        text = "\n".join(part["value"] for part in message if part["type"] == "text")
        pictures = [part["value"] for part in message if part["type"] == "image"]
        try:
            (answer,) = self.model.answers([Asked(dataset or "", text, pictures)])
        except Exception as error:
            self.error = self.error or error
            raise
        return answer.text


def register(name: str, pretrained: str | None = None, **options: Any) -> None:
    """Put a NEO among VLMEvalKit's models; it is loaded by that name unless `pretrained` is given."""
    from vlmeval.config import supported_VLM

    supported_VLM[name] = partial(Neo, pretrained or name, **options)


def judge(task: str) -> str | None:
    """Which language model VLMEvalKit asks about answers, `exact_matching`: its rules alone; None: it has no choice."""
    fields = _fields(task)
    if "matcher" in fields:
        return fields["matcher"] if "OPENAI_API_KEY" in os.environ else "exact_matching"
    return fields.get("judge")


def run(
    model: Neo, tasks: Sequence[str], folder: Path, limit: int | None = None
) -> Iterator[tuple[str, dict[str, float]]]:
    """Run data sets of VLMEvalKit, the first `limit` questions of each, in turn; its files go below `folder`.

    Yields:
        For each data set its name, and its scores by their names with the number of its questions under "questions".

    Raises:
        ValueError: there is no such data set, or no language model to mark its answers.
    """
    for task in tasks:
        if task not in SUPPORTED_DATASETS:
            raise ValueError(f"VLMEvalKit has no data set {task!r}{suggestion(task, SUPPORTED_DATASETS)}")
        check_judge(task, "vlmevalkit")
    place = folder / time.strftime("%Y%m%d-%H%M%S")  # in a folder with answers VLMEvalKit would not ask again
    place.mkdir(parents=True)
    for task in tasks:
        yield task, _run(model, task, place, limit)


def _run(model: Neo, task: str, place: Path, limit: int | None) -> dict[str, float]:
    dataset = build_dataset(task)
    if split := _fields(task).get("split"):
        dataset.data = dataset.data[dataset.data["split"] == split]
    dataset.data = dataset.data.iloc[:limit].copy()
    questions, batch = len(dataset.data), 2 * model.model.batch_size
    name = re.sub(r"[^\w.-]+", "-", model.model.name)
    try:
        infer_data_job(model, work_dir=str(place), model_name=name, dataset=dataset, api_nproc=batch)
    finally:
        if model.error is not None:
            raise model.error
    (answers,) = (file for file in place.glob(f"{name}_{task}.*") if file.suffix != ".pkl")
    marker = judge(task)
    found = dataset.evaluate(str(answers), **({"model": marker} if marker else {}))
    return _scores(found) | {"questions": questions}


def _fields(task: str) -> Mapping[str, Any]:
    """What `benchmarks.yaml` says of a data set."""
    known = benchmark(task, "vlmevalkit")
    return {} if known is None else known.vlmevalkit


def _scores(found: Any) -> dict[str, float]:
    """The numbers of a dictionary or a table; in a table of several rows behind the row's name."""
    rows = [found] if isinstance(found, Mapping) else found.to_dict("records")
    scores: dict[str, float] = {}
    for row in rows:
        label = " ".join(value for value in row.values() if isinstance(value, str)) if len(rows) > 1 else ""
        scores |= {f"{label} {name}".strip(): float(value) for name, value in row.items() if isinstance(value, Real)}
    return scores
