"""Draw docs/figures/engine.png: five requests on one engine, step by step, as they really ran on neo-demo.

python docs/figures/engine.py [FILE.png]
"""

import sys
from dataclasses import replace
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

import neo
from neo.inference.engine import Engine
from neo.inference.generation import Generation
from neo.synthetic import generate

INK, SOFT, LINE = "#26323f", "#5f6b78", "#9aa5b1"
PICTURE, WORDS, ANSWER, REUSED = "#f2c888", "#dfe6ee", "#7fa97f", "#ffffff"
CHUNK, STEPS = 48, 15
COMES = {"a": 0, "b": 0, "c": 3, "d": 6, "e": 8}
"""Step at which each request comes."""


def run() -> tuple[dict[str, Generation], list[dict[str, tuple[int, int]]]]:
    """The requests, and for every step what it computed of each: from and up to which token."""
    chat = neo.load_model("neo-demo", device="cpu")
    scenes = [generate(5, index, "test", {"caption": 1.0}).image for index in (0, 1)]
    long = "Here are many words before the question. " * 8
    questions = {
        "a": ([], "Hello"),
        "b": (scenes[:1], f"{long}Describe the image."),
        "c": (scenes[1:], "Describe the image."),
        "d": (scenes[:1], f"{long}What shape is red?"),
        "e": ([], "What is two plus three?"),
    }
    engine = Engine(chat.model, chat.processor, chunk_tokens=CHUNK)
    under_way: dict[str, Generation] = {}
    steps: list[dict[str, tuple[int, int]]] = []
    for step in range(STEPS):
        for name in (name for name, comes in COMES.items() if comes == step):
            images, text = questions[name]
            parts = [*({"type": "image", "image": image} for image in images), {"type": "text", "text": text}]
            request = chat.request([{"role": "user", "content": parts}], max_new_tokens=6)
            under_way[name] = engine.submit(replace(request, stop_ids=frozenset()))
        names = {id(generation): name for name, generation in under_way.items()}
        before = {names[id(one.generation)]: one.computed for one in engine.running}
        engine.step()
        after = {names[id(one.generation)]: one for one in engine.running}
        done: dict[str, tuple[int, int]] = {}
        for name, one in after.items():
            done[name] = (before.get(name, one.generation.reused_tokens), one.computed)
        steps.append(done)
    return under_way, steps


def draw(ax: Axes, requests: dict[str, Generation], steps: list[dict[str, tuple[int, int]]]) -> None:
    """A row for each request, a column for each step, the tokens computed in each cell."""
    for line, (name, generation) in enumerate(requests.items()):
        y, prompt = len(requests) - line - 1, generation.request.prompt
        picture = prompt.input_ids == prompt.input_ids.mode().values if len(prompt.image_grid_hw) else None
        note = f"{len(prompt.input_ids)} tokens" + (", a picture among them" if picture is not None else "")
        ax.text(-0.2, y + 0.52, name, ha="right", fontsize=13, weight="bold", color=INK)
        ax.text(-0.2, y + 0.24, note, ha="right", fontsize=9.5, color=SOFT)
        if generation.reused_tokens:
            ax.text(
                COMES[name] - 0.06, y + 0.42, f"{generation.reused_tokens} reused", ha="right", fontsize=9.5, color=SOFT
            )
        for step, done in enumerate(steps):
            if name not in done or done[name][0] == done[name][1]:
                continue
            start, stop = done[name]
            with_picture = picture is not None and bool(picture[start:stop].any())
            color = ANSWER if start >= len(prompt.input_ids) else PICTURE if with_picture else WORDS
            ax.add_patch(Rectangle((step + 0.04, y + 0.12), 0.92, 0.7, facecolor=color, edgecolor=LINE, linewidth=0.8))
            ax.text(step + 0.5, y + 0.47, str(stop - start), ha="center", va="center", fontsize=10.5, color=INK)
    for step in range(len(steps)):
        ax.text(step + 0.5, -0.18, str(step + 1), ha="center", va="top", fontsize=9.5, color=SOFT)
    ax.text(len(steps) / 2, -0.55, "step: one forward for all of them", ha="center", va="top", fontsize=11, color=INK)
    ax.set(xlim=(-4.2, len(steps) + 0.1), ylim=(-0.9, len(requests) + 0.7))
    ax.axis("off")


def main() -> None:
    figure, ax = plt.subplots(figsize=(12, 4.2), layout="constrained")
    draw(ax, *run())
    kinds = {"words of the prompt": WORDS, "a whole picture": PICTURE, "one token of the answer": ANSWER}
    handles = [Patch(facecolor=color, edgecolor=LINE, label=kind) for kind, color in kinds.items()]
    ax.legend(handles=handles, loc="upper right", ncols=3, frameon=False, fontsize=10)
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("engine.png")
    figure.savefig(target, dpi=120)


if __name__ == "__main__":
    main()
