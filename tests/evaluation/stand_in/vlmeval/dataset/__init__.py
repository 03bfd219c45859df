"""Data sets, of three types."""

from typing import Any

import pandas as pd

TABLES: dict[str, pd.DataFrame] = {}
"""What a test asks, by the data set's name."""
JUDGES: dict[str, str | None] = {}
"""Whom `evaluate` was told to ask."""
SUPPORTED_DATASETS = ["MMMU_DEV_VAL", "MMVet", "POPE", "DocVQA_VAL", "OCRBench", "MME"]


def DATASET_TYPE(dataset: str, *, default: str = "MCQ") -> str:
    return {"MMMU_DEV_VAL": "MCQ", "POPE": "Y/N", "MME": "Y/N"}.get(dataset, "VQA")


def build_dataset(dataset_name: str, **kwargs: Any) -> "ImageDataset | None":
    return ImageDataset(dataset_name) if dataset_name in TABLES else None


class ImageDataset:
    MODALITY = "IMAGE"

    def __init__(self, dataset: str) -> None:
        self.dataset_name = dataset
        self.data = TABLES[dataset].copy()

    def dump_image(self, line: Any) -> list[str]:
        return line["image_path"].split(";")

    def build_prompt(self, line: Any) -> list[dict[str, str]]:
        pictures = [{"type": "image", "value": path} for path in self.dump_image(line)]
        return [*pictures, {"type": "text", "value": f"Question: {line['question']}"}]

    def evaluate(self, eval_file: str, **judge_kwargs: Any) -> Any:
        """Scores in the form of each data set's: a table of one row or several, or a dictionary."""
        JUDGES[self.dataset_name] = judge_kwargs.get("model")
        data = pd.read_csv(eval_file, sep="\t", dtype=str)
        right = float((data["prediction"] == data["answer"]).mean())
        if self.dataset_name == "MMMU_DEV_VAL":
            return pd.DataFrame({"split": ["validation"], "Overall": [right], "Art": [right]})
        if self.dataset_name == "POPE":
            return pd.DataFrame({"split": ["Overall", "random"], "Overall": [100 * right, 0.0], "acc": [1.0, 2.0]})
        if self.dataset_name == "MMVet":
            return pd.DataFrame({"Category": ["rec", "Overall"], "tot": [1, 2], "acc": [0.0, 100 * right]})
        if self.dataset_name == "OCRBench":
            return {"Final Score": len(data), "Final Score Norm": 100 * right}
        return pd.DataFrame({"Overall": [100 * right]})
