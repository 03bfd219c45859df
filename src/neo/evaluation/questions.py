"""A test set: questions with the answers that are expected, each read when it is asked for.

Questions come from records as in training, whose last assistant turn is the expected answer, or from rows with
`question` and `answer` or `answers`; both in any file that training reads, or in a list in Python. Beside what training
reads they may have

- `answers`: several right answers, or those of ten people;
- `choices`: the texts to choose from, which are written below a `question` that does not hold them;
- `metric`: what counts as right, see `neo.evaluation.metrics`;
- `schema`: the JSON schema of the answer;
- `family`: the kind of question, by which results are divided.

`synthetic` are drawn pictures of the split that no training sees, by task; `synthetic:color,receipt` those of some
families.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from neo.data.config import SourceConfig
from neo.data.permutation import permuted
from neo.data.records import NothingToLearnError, parse_question, parse_record
from neo.data.sources import ListSource, RecordSource, open_source
from neo.evaluation.metrics import METRICS, check_names
from neo.evaluation.metrics.choice import holds, letters
from neo.evaluation.metrics.fields import check_schema
from neo.processing import chat
from neo.processing.picture import load_image, picture_file
from neo.suggestion import suggestion

DRAWN = "synthetic"
DRAWN_NUMBER = 100
"""Questions of each task that is drawn, unless said otherwise."""
HOW_TO_CHOOSE = "Answer with the option's letter from the given choices directly."


@dataclass(frozen=True)
class Question:
    """A question, and what counts as its answer."""

    messages: list[dict[str, Any]]
    """The conversation up to the question, as `neo.processing.chat` takes it."""
    expected: tuple[str, ...]
    """At least one text."""
    where: str
    """The place it was read from, as people find it."""
    family: str = ""
    metric: str = ""
    """One of `METRICS`, or empty where the record names none."""
    choices: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = field(default=None, compare=False)

    @property
    def text(self) -> str:
        """What is asked, without pictures; of a conversation with earlier turns all of it."""
        turns = chat.parse(self.messages).turns
        texts = ["".join(part for part in turn.parts if isinstance(part, str)).strip() for turn in turns]
        if len(texts) == 1:
            return texts[0]
        return "\n".join(f"{turn.role}: {text}" for turn, text in zip(turns, texts, strict=True))

    @property
    def pictures(self) -> list[Any]:
        """What is seen, in order: paths, bytes of files or pictures in memory."""
        return chat.parse(self.messages).images


class Questions(Protocol):
    """A test set."""

    name: str

    @property
    def fingerprint(self) -> str:
        """Tells the questions, their pictures and expected answers from others."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Question: ...


def open_questions(
    test_data: Any, image_root: str | None = None, number: int | None = None, schema: Mapping[str, Any] | None = None
) -> Questions:
    """The test set that is meant.

    Args:
        test_data: a file of records, a folder or pattern of them, a list of records, `synthetic`, or `Questions`.
        image_root: what relative picture paths are relative to; the folder of their file by default.
        number: questions of each family, chosen by chance but always the same; all by default, 100 of each drawn task.
        schema: JSON schema of answers whose record has none.

    Raises:
        ValueError: there are none, or one is not what it should be; the sentence names its place. Or `image_root` or
            `schema` is given to questions that are drawn.
    """
    if number is not None and number < 1:
        raise ValueError(f"number={number} must be at least 1")
    if schema is not None:
        check_schema(schema, "schema")
    if isinstance(test_data, str) and test_data.partition(":")[0] == DRAWN:
        if image_root is not None or schema is not None:
            raise ValueError(f"{test_data}: image_root and schema are for records; leave them out")
        return DrawnQuestions(test_data, number or DRAWN_NUMBER)
    if isinstance(test_data, str | Path):
        source = open_source(SourceConfig(path=str(test_data), image_root=image_root))
        assert isinstance(source, RecordSource)
        return RecordQuestions(source, number, schema)
    if hasattr(test_data, "fingerprint"):
        return test_data
    return RecordQuestions(ListSource(test_data, "test_data", image_root), number, schema)


class RecordQuestions:
    """Those of records. All are read once at the beginning, but not their pictures."""

    def __init__(
        self, source: RecordSource, number: int | None = None, schema: Mapping[str, Any] | None = None
    ) -> None:
        self.name, self._source, self._schema = source.name, source, schema
        families = defaultdict(list)
        for index in range(len(source)):
            families[self._read(index).family].append(index)
        if not families:
            raise ValueError(f"{source.name}: the test set holds no record")
        self._indices = sorted(index for places in families.values() for index in _some(places, number))

    @cached_property
    def fingerprint(self) -> str:
        """See `Questions`; reads the files of all pictures.

        Raises:
            ValueError: a picture cannot be read; the sentence names its record.
        """
        digest = hashlib.sha256()
        for question in map(self._read, self._indices):
            digest.update(_digest(question))
        return digest.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Question:
        return self._read(self._indices[index])

    def _read(self, index: int) -> Question:
        data, where, folder = self._source.read(index)
        question = parse_test_record(data, where, folder, self._source.caption_prompt)
        if question.schema is None and self._schema is not None:
            return Question(**(vars(question) | {"schema": self._schema}))
        return question


class DrawnQuestions:
    """Drawn pictures with questions: so many of each task of `neo.synthetic.tasks`."""

    def __init__(self, name: str = DRAWN, number: int = DRAWN_NUMBER, seed: int = 0) -> None:
        """Choose the tasks.

        Args:
            name: `synthetic`, or `synthetic:` and names of families or tasks with commas between them.
            number: questions of each task.
            seed: which stream is drawn.

        Raises:
            ValueError: there is no such family.
        """
        from neo.synthetic.tasks import TASKS  # drawing needs an extra that reading records does not

        wanted = [one.strip() for one in name.partition(":")[2].split(",") if one.strip()]
        families = list(dict.fromkeys(task.family for task in TASKS.values()))
        for one in wanted:
            if one not in families:
                raise ValueError(f"{name}: there is no family {one!r} of drawn pictures{suggestion(one, families)}")
        self.tasks = {label: task for label, task in TASKS.items() if not wanted or task.family in wanted}
        self.name, self.number, self.seed = name, number, seed
        self.fingerprint = f"{number} x {', '.join(self.tasks)} of seed {seed}"
        self._places: dict[str, list[int]] = {label: [] for label in self.tasks}
        """Indices in a task's stream of the samples that it accepts, as far as they are known."""

    def __len__(self) -> int:
        return len(self.tasks) * self.number

    def __getitem__(self, index: int) -> Question:
        from neo.synthetic import generate

        label, place = list(self.tasks)[index // self.number], index % self.number
        task, places = self.tasks[label], self._places[label]
        sample = None
        while len(places) <= place:
            k = places[-1] + 1 if places else 0
            while not task.accepts((sample := generate(self.seed, k, "test", {task.family: 1.0})).turns[0]):
                k += 1
            places.append(k)
        if sample is None:
            sample = generate(self.seed, places[place], "test", {task.family: 1.0})
        where = f"{label}, question {place + 1}"
        return Question(sample.messages()[:1], (sample.turns[0].answer,), where, label)


def parse_test_record(data: Any, where: str, folder: Path, caption_prompt: str) -> Question:
    """Read one record as a question.

    Args:
        data, where, folder: as in `parse_record`.
        caption_prompt: what is asked where a record has only a caption.

    Raises:
        ValueError: a field is missing or not what it should be; the message names record and field.
    """
    if isinstance(data, Mapping) and data.get("answers") is not None:
        expected = data["answers"]
        if not isinstance(expected, list) or not expected:
            raise ValueError(f"{where}: 'answers' must be a list with at least one answer")
        messages = parse_question(data, where, folder)
    elif isinstance(data, Mapping) and data.get("question") is not None:
        expected = [data.get("answer")]
        messages = parse_question(data, where, folder)
    else:
        try:
            messages = parse_record(data, where, folder, "", 0, caption_prompt).messages
        except NothingToLearnError as error:
            raise ValueError(_no_answer(where)) from error
        while messages[-1]["role"] != "assistant":
            messages.pop()
        expected = [_said(messages.pop())]
    if not messages:
        raise ValueError(f"{where}: the record asks nothing; a text alone is nothing to answer")
    if any(answer is None or not str(answer).strip() for answer in expected):
        raise ValueError(_no_answer(where))
    choices = _choices(data, where)
    if choices and data.get("question") is not None:
        messages = _with_choices(messages, choices)
    metric = data.get("metric") or ""
    if metric:
        try:
            check_names([metric], METRICS)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    return Question(
        messages=messages,
        expected=tuple(one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in expected),
        where=where,
        family=str(data.get("family") or ""),
        metric=metric,
        choices=choices,
        schema=_schema(data, where),
    )


def _digest(question: Question) -> bytes:
    """Of all that is asked and expected: pictures by their bytes, wherever their files are."""
    said = [question.text, question.expected, question.metric, question.choices, question.family, question.schema]
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for picture in question.pictures:
        try:
            if isinstance(picture, Image.Image | np.ndarray):
                pixels = load_image(picture)
                content = repr(pixels.size).encode() + pixels.tobytes()
            else:
                content, _ = picture_file(picture)
        except ValueError as error:
            raise ValueError(f"{question.where}: {error}") from error
        digest.update(hashlib.sha256(content).digest())
    return digest.digest()


def _no_answer(where: str) -> str:
    return f"{where}: no answer is expected; give 'answer', 'answers' or a last turn of the assistant"


def _said(message: Mapping[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _choices(data: Mapping[str, Any], where: str) -> tuple[str, ...]:
    choices = data.get("choices")
    if choices is None:
        return ()
    if not isinstance(choices, list) or not 2 <= len(choices) <= 26:
        raise ValueError(f"{where}: 'choices' must be a list of 2 to 26 texts")
    return tuple(one if isinstance(one, str) else json.dumps(one) for one in choices)


def _with_choices(messages: list[dict[str, Any]], choices: Sequence[str]) -> list[dict[str, Any]]:
    """The question with its choices, unless it holds them."""
    asked = messages[-1]
    if all(holds(asked["content"], choice) for choice in choices):
        return messages
    lines = [f"{letter}. {choice}" for letter, choice in zip(letters(len(choices)), choices, strict=True)]
    return [*messages[:-1], asked | {"content": "\n".join([asked["content"], *lines, HOW_TO_CHOOSE])}]


def _schema(data: Mapping[str, Any], where: str) -> Mapping[str, Any] | None:
    schema = data.get("schema")
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except ValueError as error:
            raise ValueError(f"{where}: 'schema' is not JSON ({error})") from error
    if schema is not None and not isinstance(schema, Mapping):
        raise ValueError(f"{where}: 'schema' must be a JSON schema, an object")
    if schema is not None:
        check_schema(schema, where)
    return schema


def _some(places: Sequence[int], number: int | None) -> Sequence[int]:
    if number is None or number >= len(places):
        return places
    return [places[permuted(place, len(places), 0)] for place in range(number)]
