"""Draw docs/figures/cost.png from the newest results of benchmarks/curves.py."""

import json
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

TARGET = Path(__file__).with_name("cost.png")
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
MEASURED, FLOOR = "#7090bb", "#8a8f98"


def main() -> None:
    found = max(RESULTS.glob("curves_*.json"))
    measured = json.loads(found.read_text())["measured"]
    batches, first = measured["batch"]["rows"], measured["batch"]
    pictures = [one["rows"][0] | {"side": one["image_size"]} for name, one in measured.items() if name != "batch"]
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    (batch, prefill), (step, memory) = figure.subplots(2, 2)

    draw(batch, [(row["batch_size"], row["tokens_per_s"]) for row in batches], "measured", MEASURED)
    batch.set(xlabel=f"requests at once, {batches[0]['prompt_tokens']} tokens each", ylabel="tokens/s of all")

    draw(prefill, [(row["side"], row["first_token_s"]) for row in pictures], "measured", MEASURED)
    draw(prefill, [(row["side"], row["first_token_floor_s"]) for row in pictures], "if only products cost", FLOOR)
    prefill.set(xlabel="side of the picture, pixels", ylabel="first token, s")

    draw(step, [(row["prompt_tokens"], 1000 * row["step_s"]) for row in pictures], "measured", MEASURED)
    floors = [(row["prompt_tokens"], 1000 * row["step_floor_s"]) for row in pictures]
    draw(step, floors, "if only reading memory cost", FLOOR)
    step.set(xlabel="context, tokens", ylabel="each token after it, ms")

    draw(memory, [(row["prompt_tokens"], row["peak_memory_bytes"] / 2**30) for row in pictures], "peak", MEASURED)
    draw(memory, [(row["prompt_tokens"], first["weight_bytes"] / 2**30) for row in pictures], "weights", FLOOR)
    memory.set(xlabel="context, tokens", ylabel="memory, GiB")

    machine = first["machine"]
    figure.suptitle(f"{first['model']}, {first['dtype']}, {machine['name']}, {machine['threads']} threads", fontsize=9)
    figure.savefig(TARGET, dpi=120)
    print(TARGET)


def draw(axes: Axes, points: list[tuple[float, float]], label: str, color: str) -> None:
    axes.plot(*zip(*points, strict=True), marker="o", markersize=3, color=color, label=label)
    axes.set_ylim(0, 1.08 * axes.dataLim.ymax)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)


if __name__ == "__main__":
    main()
