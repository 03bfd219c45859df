"""How risky a picture is for a page that everyone sees: a risk level and an explanation, as JSON.

python examples/content_moderation.py [PICTURE [MODEL]]

The form comes from the schema. neo-demo has never learned what is harmful: its level is a guess and its words are
about shapes. With NEO-9B-SFT the answers are worth reading; measure them on pictures of your own (docs/evaluation.md)
before anything depends on them, and leave what is not plainly "low" to a person. Needs the extra `guided`.
"""

import json
import sys
from pathlib import Path

import neo

PICTURE = str(Path(__file__).parent / "images" / "circle.png")
QUESTION = (
    "Could this picture harm or upset someone: violence, nudity, hate, self-harm, private data? "
    "Answer as JSON with the risk level (low, medium or high) and an explanation in one sentence."
)
SCHEMA = {
    "type": "object",
    "properties": {
        "risk": {"enum": ["low", "medium", "high"]},
        "explanation": {"type": "string", "minLength": 1, "maxLength": 200},
    },
    "required": ["risk", "explanation"],
    "additionalProperties": False,
}


def main(picture: str = PICTURE, name: str = "neo-demo") -> None:
    """Print the judgement, and who decides."""
    judgement = json.loads(neo.load_model(name).generate(image=picture, text=QUESTION, json_schema=SCHEMA))
    print(json.dumps(judgement, indent=2))
    print("decision:", "publish" if judgement["risk"] == "low" else "a person looks at it")


if __name__ == "__main__":
    main(*sys.argv[1:])
