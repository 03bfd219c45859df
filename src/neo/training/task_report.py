"""How well a model answers the synthetic tasks on the held-out split: a table as JSON and Markdown."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import torch

from neo.model.neo import NeoForConditionalGeneration
from neo.processing.processor import NeoProcessor
from neo.synthetic import Sample, Turn, generate, matches

logger = logging.getLogger(__name__)

JSON, MARKDOWN = "accuracy.json", "accuracy.md"


class Task(NamedTuple):
    """Questions of one kind: those of a family that `accepts` them."""

    family: str
    question: str
    """How the question reads; braces stand for a word of the picture."""
    accepts: Callable[[Turn], bool] = lambda turn: True


TASKS: Mapping[str, Task] = {
    "colour": Task("color", "What color is the {shape}?"),
    "colour, among several shapes": Task("lookup", "What color is the {shape}?"),
    "shape": Task("shape", "What shape is {color}?"),
    "position": Task("position", "Which shape is on the left?", lambda turn: turn.kind == "position"),
    "yes or no": Task("exist", "Is there a {color} {shape}?"),
    "count, 0 to 9": Task("count", "How many {shape}s are there?"),
    "handwritten digit": Task("handwritten", "Which digit is handwritten?"),
    "number, 1 to 3 digits": Task("number", "What number is written?", lambda turn: len(turn.answer) <= 3),
    "number, 4 to 6 digits": Task("number", "What number is written?", lambda turn: len(turn.answer) > 3),
    "word": Task("word", "What word is written?"),
    "chart, tallest bar": Task("chart", "Which bar is the tallest?", lambda turn: "tallest" in turn.question),
    "chart, value": Task("chart", "What is the value of {label}?", lambda turn: "value" in turn.question),
    "receipt, total": Task("receipt", "What is the total?", lambda turn: "total" in turn.question),
    "receipt, JSON": Task("receipt", "Extract the receipt as JSON.", lambda turn: "JSON" in turn.question),
    "caption": Task("caption", "Describe the image."),
    "list, left to right": Task("list", "List the shapes from left to right."),
    "text only": Task("text", "What is two plus three?"),
}
"""Tasks by name, in the order of the table."""


@dataclass(frozen=True)
class Score:
    """Answers of one task."""

    task: str
    question: str
    right: int
    asked: int
    mistakes: list[dict[str, str]]
    """The first few wrong answers: question, expected, predicted."""

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.right / self.asked


@torch.inference_mode()
def answers(
    model: NeoForConditionalGeneration,
    processor: NeoProcessor,
    samples: Sequence[Sample],
    batch_size: int = 32,
    max_new_tokens: int = 160,
) -> list[str]:
    """Greedy answers to the first question of each sample."""
    tokenizer = processor.tokenizer
    encoded = [processor.encode(sample.messages()[:1], add_generation_prompt=True) for sample in samples]
    # Conversations of about one length in a batch: less padding.
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i].input_ids))
    texts = [""] * len(encoded)
    model.eval()
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch: dict[str, Any] = processor.collate([encoded[i] for i in chosen])
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        said = model.generate(  # type: ignore[misc]
            **batch,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"),
            pad_token_id=tokenizer.pad_token_id,
        )
        new = said[:, batch["input_ids"].shape[1] :]
        for i, text in zip(chosen, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
            texts[i] = text.strip()
    return texts


def score_task(
    model: NeoForConditionalGeneration,
    processor: NeoProcessor,
    name: str,
    samples: int = 200,
    seed: int = 0,
    batch_size: int = 32,
    kept_mistakes: int = 5,
) -> Score:
    """Ask `samples` questions of a task from the test split.

    Raises:
        ValueError: there is no such task.
    """
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}: choose from {', '.join(TASKS)}")
    task = TASKS[name]
    stream = (generate(seed, k, "test", {task.family: 1.0}) for k in count())
    chosen = list(islice((sample for sample in stream if task.accepts(sample.turns[0])), samples))
    mistakes = []
    for sample, said in zip(chosen, answers(model, processor, chosen, batch_size), strict=True):
        turn = sample.turns[0]
        if not matches(turn.kind, said, turn.answer):
            mistakes.append({"question": turn.question, "expected": turn.answer, "predicted": said})
    return Score(name, task.question, len(chosen) - len(mistakes), len(chosen), mistakes[:kept_mistakes])


def task_report(
    model: NeoForConditionalGeneration,
    processor: NeoProcessor,
    folder: str | Path,
    samples: int = 200,
    seed: int = 0,
    tasks: Sequence[str] = tuple(TASKS),
    batch_size: int = 32,
) -> list[Score]:
    """Ask every task and write `accuracy.json` and `accuracy.md` into a folder."""
    scores = []
    for name in tasks:
        scores.append(score_task(model, processor, name, samples, seed, batch_size))
        logger.info("%s: %d of %d right", name, scores[-1].right, scores[-1].asked)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [asdict(score) | {"accuracy": score.accuracy} for score in scores]
    (folder / JSON).write_text(json.dumps({"split": "test", "seed": seed, "tasks": rows}, indent=2) + "\n")
    (folder / MARKDOWN).write_text(markdown(scores))
    return scores


def markdown(scores: Sequence[Score]) -> str:
    """The scores as a Markdown table."""
    lines = ["| task | question | accuracy | questions |", "|---|---|---:|---:|"]
    lines += [f"| {s.task} | {s.question} | {s.accuracy:.1%} | {s.asked} |" for s in scores]
    return "\n".join(lines) + "\n"
