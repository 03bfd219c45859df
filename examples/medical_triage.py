"""In which order people should look at pictures: a sketch of triage, never a diagnosis.

python examples/medical_triage.py [PICTURE ...]

No NEO is a medical device, none was tested as one, and neo-demo has never seen a photograph: its order means nothing.
NEO-9B-SFT, fine-tuned on pictures that doctors labelled and measured against doctors, is the least that the idea needs.
"""

import sys
from pathlib import Path

import neo

IMAGES = Path(__file__).parent / "images"
PICTURES = [str(IMAGES / name) for name in ("circle.png", "two_shapes.png", "stars.png")]
QUESTION = "How soon should a doctor look at this picture: now, today or routine?"
LEVELS = ["now", "today", "routine"]
DISCLAIMER = (
    "This is not medical advice and not a diagnosis. It only orders a queue that a doctor reads in full;\n"
    "whoever feels unwell calls a doctor or the emergency services, whatever stands below."
)


def main(*pictures: str) -> None:
    """Print the disclaimer, then the pictures, the most urgent first."""
    model = neo.load_model("neo-demo")
    asked = list(pictures or PICTURES)
    levels = model.generate_batch(asked, QUESTION, choices=LEVELS)
    print(DISCLAIMER)
    for level, picture in sorted(zip(levels, asked, strict=True), key=lambda pair: LEVELS.index(pair[0])):
        print(f"{level:8} {Path(picture).name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
