"""Fine-tune neo-demo with TRL's SFTTrainer: after `import neo` a NEO is a model of transformers like any other.

pip install trl
python examples/trl_sft.py [STEPS]

The records are those of finetune_and_compare.py. SFTTrainer brings what TRL can do beside; `neo.training.train` packs
conversations into rows instead of padding them, and goes on exactly where it was stopped.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from arrows import QUESTION, records
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import SFTConfig, SFTTrainer

import neo

FOLDER = Path(neo.__file__).parent / "checkpoints" / "neo-demo"  # or a hub id


def main(steps: int = 20) -> None:
    """Train a few steps and save."""
    processor = AutoProcessor.from_pretrained(FOLDER)
    model = AutoModelForImageTextToText.from_pretrained(FOLDER, dtype=torch.float32)

    def collate(batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Records to padded tensors; what the user says, and padding, carries no loss."""
        encoded = []
        for record in batch:
            user, assistant = record["conversations"]
            encoded.append(processor.encode([{**user, "image": record["image"]}, assistant]))
        labels = pad_sequence([one.labels for one in encoded], batch_first=True, padding_value=-100)
        return processor.collate(encoded, padding_side="right") | {"labels": labels}

    trainer = SFTTrainer(
        model,
        args=SFTConfig(
            "runs/trl",
            max_steps=steps,
            per_device_train_batch_size=8,
            learning_rate=5e-4,
            bf16=False,
            logging_steps=1,
            report_to="none",
            remove_unused_columns=False,  # the collator reads them
        ),
        train_dataset=Dataset.from_list(records(400, seed=0)),
        data_collator=collate,
        processing_class=processor,
    )
    trainer.train()
    trainer.save_model()  # model and processor, in the published layout
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    print(f"loss {losses[0]:.2f} at first, {losses[-1]:.2f} after {steps} steps")
    picture = records(1, seed=1)[0]["image"]
    print(QUESTION, neo.load_model("runs/trl").generate(image=picture, text=QUESTION, max_new_tokens=8))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
