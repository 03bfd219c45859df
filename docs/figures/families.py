"""Draw docs/figures/families.png: the loss of each kind of question over stages of the small model, by steps.

python docs/figures/families.py runs/demo/fine runs/demo/lookup runs/demo/last
"""

import sys
from pathlib import Path

from matplotlib.figure import Figure

from neo.training.curves import smoothed
from neo.training.metrics import read_metrics

TARGET = Path(__file__).with_name("families.png")
FAMILIES = {"count": "#d9935a", "list": "#7090bb", "lookup": "#b5566a", "number": "#7fab80", "exist": "#8a8f98"}


def main(folders: list[Path]) -> None:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots()
    before = 0
    for folder in folders:
        lines = read_metrics(folder)
        for family, color in FAMILIES.items():
            key = f"loss/pictures/{family}"
            points = [(before + line["step"], line[key]) for line in lines if key in line]
            if points:
                steps, losses = zip(*points, strict=True)
                axes.plot(steps, smoothed(list(losses)), color=color, linewidth=1.6)
        axes.axvline(before, color="#c8ccd2", linewidth=0.8)
        axes.text(before, 0.57, f" {folder.name}", color="#60656d")
        before += lines[-1]["step"]
    for family, color in FAMILIES.items():
        axes.plot([], [], color=color, label=family)
    axes.set(xlabel="steps", ylabel="loss per answer token", ylim=(0, 0.6), xlim=(0, before))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, ncols=len(FAMILIES), loc="upper right", bbox_to_anchor=(1, 0.92))
    figure.savefig(TARGET, dpi=120)
    print(TARGET)


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]])
