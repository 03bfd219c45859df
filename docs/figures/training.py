"""Draw docs/figures/training.png: the loss of the small model over all its stages, by tokens seen.

python docs/figures/training.py runs/demo/llm runs/demo/pt runs/demo/mt runs/demo/sft
"""

import sys
from pathlib import Path

from matplotlib.figure import Figure

from neo.training import load_recipe
from neo.training.curves import smoothed
from neo.training.metrics import read_metrics

TARGET = Path(__file__).with_name("training.png")
COLORS = ("#8a8f98", "#d9935a", "#7090bb", "#7fab80")


def main(folders: list[Path]) -> None:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots()
    before = 0.0
    for folder, color in zip(folders, COLORS, strict=True):
        recipe = load_recipe(folder / "recipe.yaml")
        per_step = recipe.data.max_seq_length * recipe.data.rows_per_batch / 1e6
        lines = read_metrics(folder)
        tokens = [before + line["step"] * per_step for line in lines]
        losses = [line["loss"] for line in lines]
        axes.plot(tokens, losses, color=color, linewidth=0.7, alpha=0.4)
        axes.plot(tokens, smoothed(losses), color=color, linewidth=1.8, label=f"{recipe.stage}, {recipe.steps} steps")
        before = tokens[-1]
    axes.set(xlabel="million tokens seen", ylabel="loss", ylim=(0, 2.2), xlim=(0, before))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(TARGET, dpi=120)
    print(TARGET)


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]])
