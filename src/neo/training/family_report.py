"""How well a model answers each synthetic family on the held-out split: a table as JSON and Markdown."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch

from neo.model.neo import NeoForConditionalGeneration
from neo.processing.processor import NeoProcessor
from neo.synthetic import FAMILIES, Sample, generate, matches

logger = logging.getLogger(__name__)

JSON, MARKDOWN = "accuracy.json", "accuracy.md"


@dataclass(frozen=True)
class FamilyScore:
    """Answers of one family."""

    family: str
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


def score_family(
    model: NeoForConditionalGeneration,
    processor: NeoProcessor,
    family: str,
    samples: int = 200,
    seed: int = 0,
    batch_size: int = 32,
    kept_mistakes: int = 5,
) -> FamilyScore:
    """Ask `samples` questions of a family from the test split."""
    chosen = list(islice((generate(seed, k, "test", {family: 1.0}) for k in count()), samples))
    mistakes = []
    for sample, said in zip(chosen, answers(model, processor, chosen, batch_size), strict=True):
        turn = sample.turns[0]
        if not matches(turn.kind, said, turn.answer):
            mistakes.append({"question": turn.question, "expected": turn.answer, "predicted": said})
    return FamilyScore(family, len(chosen) - len(mistakes), len(chosen), mistakes[:kept_mistakes])


def family_report(
    model: NeoForConditionalGeneration,
    processor: NeoProcessor,
    folder: str | Path,
    samples: int = 200,
    seed: int = 0,
    families: Sequence[str] = FAMILIES,
    batch_size: int = 32,
) -> list[FamilyScore]:
    """Ask every family and write `accuracy.json` and `accuracy.md` into a folder."""
    scores = []
    for family in families:
        scores.append(score_family(model, processor, family, samples, seed, batch_size))
        logger.info("%s: %d of %d right", family, scores[-1].right, scores[-1].asked)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [asdict(score) | {"accuracy": score.accuracy} for score in scores]
    (folder / JSON).write_text(json.dumps({"split": "test", "seed": seed, "families": rows}, indent=2) + "\n")
    (folder / MARKDOWN).write_text(markdown(scores))
    return scores


def markdown(scores: Sequence[FamilyScore]) -> str:
    """The scores as a Markdown table."""
    lines = ["| family | right | asked | accuracy |", "|---|---:|---:|---:|"]
    lines += [f"| {s.family} | {s.right} | {s.asked} | {s.accuracy:.1%} |" for s in scores]
    return "\n".join(lines) + "\n"
