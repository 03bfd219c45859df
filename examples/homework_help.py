"""Help with homework: first a hint, then the answer, in one conversation about the exercise.

python examples/homework_help.py [EXERCISE [MODEL [PICTURE]]]

neo-demo adds and subtracts small numbers and has no hints to give. For exercises in words, formulas and figures take
NEO-9B-SFT, or NEO-ov-9B-SFT, whose published evaluation asks it to reason step by step; both make mistakes, so let
them show the steps and check these.
"""

import sys

import neo

TUTOR = "You are a patient tutor. Give a hint before you give an answer, and show every step."


def main(exercise: str = "What is 2 + 3?", name: str = "neo-demo", picture: str | None = None) -> None:
    """Print the conversation."""
    chat = neo.load_model(name).start_chat(system=TUTOR)
    for question, image in ((f"Give me a hint, not the answer: {exercise}", picture), (exercise, None)):
        print(f"> {question}")
        print(chat.ask(question, image=image, max_new_tokens=256))


if __name__ == "__main__":
    main(*sys.argv[1:])
