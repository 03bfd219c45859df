"""What the engine costs on this machine against batch, picture size and context: `neo bench`'s rows.

    python benchmarks/curves.py --save
    python docs/figures/cost.py

The model is that of benchmarks/inference.py with random weights. Batches are asked about a 256 x 256 picture, sizes of
pictures one at a time; so is the memory that a context takes beside the weights.
"""

import torch
from inference import DTYPES, build
from report import make_parser, save

from neo.inference.bench import bench, report
from neo.inference.chat import ChatModel
from neo.processing.tokenizer import train_tokenizer
from neo.training.grow import make_processor

BATCHES = (1, 2, 4, 8, 16)
SIDES = (0, 256, 512, 768, 1024, 1536)
NEW_TOKENS, REPEATS = 16, 2
WORDS = ["What is in this picture? Describe what you see."] * 4


def asked_model(dtype: torch.dtype) -> ChatModel:
    """The benchmarks' model with a processor: a small tokenizer whose ids are the first of the vocabulary."""
    tokenizer = train_tokenizer(WORDS, 400)
    model = build(dtype, "sdpa")
    processor = make_processor(model, tokenizer)
    model.config.image_token_id = processor.ids.image
    return ChatModel(model, processor, f"{sum(p.numel() for p in model.parameters()) / 1e6:.0f} M parameters")


def main() -> None:
    parser = make_parser(__doc__, "curves_cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    args = parser.parse_args()
    chat = asked_model(DTYPES[args.dtype])
    measured = {"batch": bench(chat, BATCHES, 256, NEW_TOKENS, REPEATS)}
    print(report(measured["batch"]))
    for side in SIDES:
        measured[f"picture {side}"] = bench(chat, [1], side, NEW_TOKENS, REPEATS)
        print(report(measured[f"picture {side}"]).splitlines()[-1], flush=True)
    if args.save:
        save("curves_cpu", {"measured": measured})


if __name__ == "__main__":
    main()
