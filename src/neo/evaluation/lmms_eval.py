"""lmms-eval asks a NEO: a chat model for its registry, and its tasks run from here.

lmms-eval finds the model by the entry point `neo` of the group `lmms_eval.models` (pyproject.toml), so that its own
command runs it, too: `lmms-eval --model neo --model_args pretrained=NEO-2B-SFT --tasks docvqa_val`.

Importing lmms-eval lets cut-off pictures pass as whole ones in the whole process (`PIL.ImageFile`), as its tasks want.
"""

import re
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmms_eval import tasks as builtin
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager
from tenacity import RetryError

from neo.evaluation.benchmarks import benchmark, check_judge
from neo.evaluation.harness import LETTER, OPEN, REASON_CHOICE, REASON_OPEN, SHORT, YES_NO, Asked, BenchmarkModel, Style
from neo.inference.chat import ChatModel
from neo.suggestion import suggestion

REWORDED = (
    ("chartqa", r"\nAnswer the question with a single word\.$", f"\n{SHORT}"),
    ("hallusion", r"$", f" {YES_NO}"),
    ("mmbench", r" There are several options:\n", "\n"),
    ("mmbench", rf"\n+{LETTER}$", f"\n{LETTER}"),
    ("mmmu", rf"\n+{SHORT}$", f"\n{OPEN}"),
    ("mmmu", rf"\n+{LETTER}$", f"\n{LETTER}"),
    ("mmstar", r"(?<=given choices directly)$", "."),
    ("mmvet", r"^First please perform reasoning.*?\n\n", ""),
    ("ocrbench", r"$", f"\n{SHORT}"),
)
"""What lmms-eval says otherwise than the published runs: part of a task's name, pattern, words in its place.

POPE keeps lmms-eval's request for a single word, which the published runs had not: lmms-eval compares whole answers.
"""


class Neo(lmms):
    """A NEO as lmms-eval's chat model.

    Args:
        pretrained: as `neo.load_model` takes it, or what it returned.
        prompts: "published", the words of the published runs, or "harness", lmms-eval's own.
        batch_size, device: as lmms-eval hands them over; answers under way at the same time, and where.
        max_batch_size: not used.
        options: of `BenchmarkModel`, which are style, min_pixels, max_pixels and max_new_tokens, and of
            `neo.load_model`.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str | ChatModel = "neo-demo",
        prompts: str = "published",
        batch_size: int | str = 16,
        device: str | None = None,
        max_batch_size: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if prompts not in ("published", "harness"):
            raise ValueError(f"prompts={prompts!r} must be published or harness")
        if not isinstance(pretrained, ChatModel):
            options["device"] = device or "auto"
        self.prompts = prompts
        self.model = BenchmarkModel(pretrained, batch_size=int(batch_size), **options)

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """The answers to lmms-eval's requests, in order."""
        answers = []
        for request, answer in zip(requests, self.model.answers(map(self._asked, requests)), strict=True):
            counts = TokenCounts(input_tokens=answer.prompt_tokens, output_tokens=len(answer.tokens))
            answers.append(GenerationResult(answer.text, counts))
            self.cache_hook.add_partial("generate_until", (request.args[0], request.args[2]), answer.text)
        return answers

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Refused: the benchmarks that NEO was measured on generate."""
        raise ValueError("neo answers lmms-eval's generating tasks; tasks by likelihood are not supported")

    def generate_until_multi_round(self, requests: list[Instance]) -> list[GenerationResult]:
        """Refused, as `loglikelihood`."""
        raise ValueError("neo answers lmms-eval's tasks of one round; tasks of several rounds are not supported")

    def _asked(self, request: Instance) -> Asked:
        _, messages_of, settings, number, task, split = request.args
        system, text, pictures = _read(messages_of(self.task_dict[task][split][number]), task)
        if self.prompts == "published":
            text = reworded(task, text, self.model.style)
        # A blank line is only lmms-eval's default for tasks that name no end; answers may well have one.
        ends = [end for end in settings.get("until") or () if end.strip()]
        return Asked(task, text, pictures, system, settings.get("max_new_tokens"), tuple(ends))


def reworded(task: str, text: str, style: Style) -> str:
    """A task's question in the words of the published runs."""
    for name, pattern, words in REWORDED:
        if name in task:
            text = re.sub(pattern, words, text, count=1, flags=re.DOTALL)
    if style.reasons and "mmmu" in task:
        for ending, words in ((LETTER, REASON_CHOICE), (OPEN, REASON_OPEN)):
            if text.endswith(f"\n{ending}"):
                return words + text.removesuffix(f"\n{ending}")
    return text


def _read(messages: Sequence[Mapping[str, Any]], task: str) -> tuple[str | None, str, list[Any]]:
    """System prompt, text and pictures of a single question; MMMU's pictures leave the marks that its data has."""
    system, text, pictures = None, [], []
    for message in messages:
        if message["role"] == "assistant":
            raise ValueError(f"{task}: its questions are conversations; neo answers single questions")
        for part in message["content"]:
            if message["role"] == "system":
                system = part["text"]
            elif part["type"] == "text":
                text.append(part["text"])
            elif part["type"] == "image":
                pictures.append(part["url"])
                text += [f"<image {len(pictures)}>"] if "mmmu" in task else []
            else:
                raise ValueError(f"{task}: its questions come with {part['type']}; neo answers about pictures here")
    return system, " ".join(text), pictures


def run(
    model: Neo, tasks: Sequence[str], folder: Path, limit: int | None = None, own_tasks: Path | None = None
) -> Iterator[tuple[str, dict[str, float]]]:
    """Run tasks of lmms-eval, one after the other.

    Args:
        model: who answers.
        tasks: their names.
        folder: for files that tasks write on the side.
        limit: questions of each task; all unless given.
        own_tasks: folder of more task files; where one has the name of lmms-eval's, it counts.

    Yields:
        For each task its name, and its scores by their names with the number of its questions under "questions".

    Raises:
        ValueError: there is no such task, no language model to mark its answers, or its data cannot be loaded.
    """
    known = [one for one in (benchmark(name, "lmms-eval") for name in tasks) if one is not None]
    root = Path(builtin.__file__).parent
    # Reading all of its two thousand tasks takes lmms-eval long.
    places = [str(root / one.lmms_eval["folder"]) for one in known]
    places = [str(own_tasks), *places] if own_tasks else places
    manager = TaskManager(include_path=places, include_defaults=own_tasks is None and len(known) < len(tasks))
    for name in tasks:
        if name not in manager.all_tasks:
            raise ValueError(f"lmms-eval has no task {name!r}{suggestion(name, manager.all_tasks)}")
        check_judge(name, "lmms-eval")
    folder.mkdir(parents=True, exist_ok=True)
    settings = Namespace(output_path=str(folder), process_with_media=False)
    how = {"limit": limit, "bootstrap_iters": 0, "log_samples": False, "cli_args": settings}
    for name in tasks:
        try:
            found = simple_evaluate(model, tasks=[name], task_manager=manager, **how)
        except RetryError as error:  # it tries several times to fetch the data
            why = error.last_attempt.exception()
            raise ValueError(f"lmms-eval cannot load the data of {name}: {why}") from error
        yield name, _scores(found["results"][name]) | {"questions": found["n-samples"][name]["effective"]}


def _scores(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row of lmms-eval's results, of which the first filter's count."""
    scores: dict[str, float] = {}
    for key, value in row.items():
        name = key.partition(",")[0]
        if isinstance(value, int | float) and "_stderr" not in name:
            scores.setdefault(name, float(value))
    return scores
