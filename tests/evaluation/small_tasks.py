"""The thirteen benchmarks as lmms-eval defines them, on two questions each: data of the same format, made here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import lmms_eval.tasks
import yaml
from PIL import Image

from neo.evaluation.benchmarks import benchmarks

RED = Image.new("RGB", (64, 64), "red")
QUESTION = "What color is it?"
SPLITS = {"MMMU": "validation", "MMBench": "dev", "MMStar": "val", "HallusionBench": "image"}
SPLITS |= {"DocVQA": "validation", "InfoVQA": "validation", "TextVQA": "validation"}
"""Where it is not called test."""


def mmmu(number: int) -> dict[str, Any]:
    kind = {"question_type": "multiple-choice", "options": "['red', 'blue']", "answer": "A"}
    if number:
        kind = {"question_type": "open", "options": "[]", "answer": "7"}
    images = {f"image_{index}": RED if index < 3 else None for index in range(1, 8)}
    text = "Look at <image 1> and <image 2>. What color?" if number == 0 else "<image 1> How many?"
    return {"id": f"validation_Art_{number}", "question": text, **kind, **images}


def mmbench(number: int) -> dict[str, Any]:
    kind = {"category": "color", "L2-category": "perception", "hint": "nan", "source": "s", "split": "dev"}
    choices = {"A": "red", "B": "blue", "C": "nan", "D": "nan"}
    return {"index": number, "question": QUESTION, "answer": "A", "image": RED, **choices, **kind}


def mmvet(number: int) -> dict[str, Any]:
    kind = {"capability": "rec", "imagesource": "s"}
    return {"question_id": f"v1_{number}", "question": QUESTION, "answer": "red", "image": RED, **kind}


def mmstar(number: int) -> dict[str, Any]:
    text = f"{QUESTION}\nOptions: A: red, B: blue"
    kind = {"category": "math", "l2_category": "geometry", "meta_info": {"source": "s"}}
    return {"index": number, "question": text, "image": RED, "answer": "A", **kind}


def seedbench(number: int) -> dict[str, Any]:
    choices = {"choice_a": "red", "choice_b": "blue", "choice_c": "green", "choice_d": "pink"}
    kind = {"data_type": "image", "question_id": str(number)}
    return {"question": QUESTION, "answer": "A", "image": [RED], **choices, **kind}


def pope(number: int) -> dict[str, Any]:
    kind = {"question_id": str(number), "category": "random"}
    return {"question": "Is there a dog?", "answer": ("yes", "no")[number], "image": RED, **kind}


def hallusion(number: int) -> dict[str, Any]:
    kind = {"category": "VD", "subcategory": "chart", "set_id": "0", "figure_id": "1", "question_id": str(number)}
    kind |= {"visual_input": "1", "sample_note": "", "gt_answer": "1"}
    return {"question": "Is it red?", "gt_answer_details": "It is red.", "image": RED, **kind}


def ai2d(number: int) -> dict[str, Any]:
    return {"question": QUESTION, "options": ["red", "blue"], "answer": "0", "image": RED}


def reading(number: int) -> dict[str, Any]:
    return {"questionId": str(number), "question": "What is written?", "answers": ["red wine"], "image": RED}


def chartqa(number: int) -> dict[str, Any]:
    return {"type": ("human_test", "augmented_test")[number], "question": "How many?", "answer": "100", "image": RED}


def textvqa(number: int) -> dict[str, Any]:
    return {"question_id": number, "question": "what is written?", "answers": ["red"] * 10, "image": RED}


def ocrbench(number: int) -> dict[str, Any]:
    kind = {"dataset": "IIIT5K", "question_type": "Regular Text Recognition"}
    return {"question": "What is written?", "answer": ["red"], "image": RED, **kind}


ROWS: dict[str, Callable[[int], dict[str, Any]]] = {
    "MMMU": mmmu,
    "MMBench": mmbench,
    "MMVet": mmvet,
    "MMStar": mmstar,
    "SEED-I": seedbench,
    "POPE": pope,
    "HallusionBench": hallusion,
    "AI2D": ai2d,
    "DocVQA": reading,
    "ChartQA": chartqa,
    "InfoVQA": reading,
    "TextVQA": textvqa,
    "OCRBench": ocrbench,
}


def make_tasks(folder: Path) -> Path:
    """A folder of task files: lmms-eval's own, except that their data is here."""
    root = Path(lmms_eval.tasks.__file__).parent
    for name, row in ROWS.items():
        data = folder / f"{name}.parquet"
        rows = datasets.Dataset.from_list([row(number) for number in (0, 1)])
        for column in rows.column_names:
            if column.startswith("image") and column != "imagesource":
                kind = datasets.Image()
                rows = rows.cast_column(column, datasets.List(kind) if name == "SEED-I" else kind)
        rows.to_parquet(data)
        task = benchmarks()[name].lmms_eval
        fields = {
            "include": str(root / task["folder"] / f"{task['task']}.yaml"),
            "task": task["task"],
            "dataset_path": "parquet",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": {SPLITS.get(name, "test"): str(data)}},
        }
        (folder / f"{task['task']}.yaml").write_text(yaml.safe_dump(fields))
    return folder
