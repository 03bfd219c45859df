"""One question about every picture of a folder, many at once; a line of JSON for each picture.

python examples/batch_folder.py [FOLDER [QUESTION [MODEL]]] > answers.jsonl

neo-demo describes drawn shapes and little else; for captions of photographs take NEO-2B-SFT. A picture that cannot
be read is told in its line; the others are answered all the same.
"""

import json
import sys
from pathlib import Path

import neo
from neo.processing.picture import load_image

AT_ONCE = 64
"""Pictures in memory at the same time; how many of them make a step together, the engine decides."""


def main(
    folder: str = str(Path(__file__).parent / "images"), question: str = "Describe the image.", name: str = "neo-demo"
) -> None:
    """Print the lines."""
    model = neo.load_model(name)
    paths = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in {".png", ".jpg", ".jpeg", ".webp"})
    for start in range(0, len(paths), AT_ONCE):
        pictures = {}
        for path in paths[start : start + AT_ONCE]:
            try:
                pictures[path.name] = load_image(path)
            except ValueError as error:
                print(json.dumps({"image": path.name, "error": str(error)}))
        answers = model.generate_batch(list(pictures.values()), question, max_new_tokens=64)
        for image, answer in zip(pictures, answers, strict=True):
            print(json.dumps({"image": image, "answer": answer}))


if __name__ == "__main__":
    main(*sys.argv[1:])
