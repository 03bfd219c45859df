"""Answers of the tiny checkpoint, which says nonsense, have the form that was asked for all the same."""

import json
import re
import sys
from pathlib import Path
from typing import Any, Literal

import jsonschema
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from neo.inference import constraint
from neo.inference.cache import GROWTH
from neo.inference.chat import ChatModel
from neo.inference.constraint import UnfinishedAnswer
from neo.inference.engine import Engine
from neo.inference.generation import Request
from neo.inference.sampling import Sampling
from neo.model.sizes import cache_bytes_per_token

TEXT = "Describe it as JSON."
RANDOM = {"temperature": 1.0}


class Line(BaseModel):
    name: str = Field(max_length=3)
    price: int = Field(ge=0, le=999)


class Receipt(BaseModel):
    shop: Literal["Bäckerei", 'the "old" mill']
    lines: list[Line] = Field(max_length=2)
    note: None


def bounded(schemas: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Lists and objects of schemas whose answers end."""
    names = st.lists(st.sampled_from(["a", "b", "größe", 'say "x"', "two words"]), unique=True, max_size=3)
    objects = names.flatmap(
        lambda keys: st.tuples(st.tuples(*[schemas] * len(keys)), st.sets(st.sampled_from(keys or ["a"]))).map(
            lambda drawn: {
                "type": "object",
                "properties": dict(zip(keys, drawn[0], strict=True)),
                "required": sorted(drawn[1] & set(keys)),
                "additionalProperties": False,
            }
        )
    )
    lists = st.tuples(schemas, st.integers(0, 2), st.integers(0, 1)).map(
        lambda drawn: {"type": "array", "items": drawn[0], "minItems": drawn[1], "maxItems": drawn[1] + drawn[2]}
    )
    return objects | lists | st.lists(schemas, min_size=1, max_size=3).map(lambda several: {"anyOf": several})


def deep(levels: int) -> str:
    """A schema of lists in lists."""
    return '{"items":' * levels + "{}" + "}" * levels


SCHEMAS = st.recursive(
    st.sampled_from(
        [
            {"type": "boolean"},
            {"type": "null"},
            {"type": "integer", "minimum": -20, "maximum": 300},
            {"type": "number", "minimum": 0, "exclusiveMaximum": 10, "multipleOf": 0.5},
            {"type": "string", "maxLength": 5},
            {"type": "string", "pattern": "^[a-f]{1,3}-[0-9]$"},
            {"type": "string", "format": "date"},
            {"enum": ["red", 'a"b\\', "丸", 7, None]},
            {"const": {"x": [1, 2]}},
        ]
    ),
    bounded,
    max_leaves=5,
)


@settings(max_examples=25, deadline=None)
@given(SCHEMAS, st.integers(0, 2**32), st.sampled_from([0.0, 0.7, 1.0, 3.0]), st.sampled_from([4, 40, 400]))
def test_random_answers_are_valid_by_random_schemas(chat_model: ChatModel, schema: Any, seed: int, hot: float, most):
    options = {"json_schema": schema, "temperature": hot, "seed": seed, "max_new_tokens": most}
    try:
        jsonschema.validate(json.loads(chat_model.generate(text=TEXT, **options)), schema)
    except UnfinishedAnswer as error:
        unfinished = error.completion
    else:
        return
    assert len(unfinished.tokens) == most


def test_a_pydantic_class_its_schema_and_its_text_are_the_same(chat_model: ChatModel):
    schema = Receipt.model_json_schema()
    schema["additionalProperties"] = schema["$defs"]["Line"]["additionalProperties"] = False
    forms = [Receipt, schema, json.dumps(schema)]
    answers = [chat_model.generate(text=TEXT, json_schema=form, seed=3, **RANDOM) for form in forms]
    assert len(set(answers)) == 1
    Receipt.model_validate_json(answers[0])


def test_requests_side_by_side_each_keep_their_form(chat_model: ChatModel):
    messages = [{"role": "user", "content": TEXT}]
    forms: list[dict[str, Any]] = [
        {"json_schema": Receipt},
        {"regex": r"[A-F]{3}-\d{2,4}"},
        {"choices": ["red", "redder", 'a "b"\n', "丸です"]},
        {},
        {"regex": r"(?i)yes|no"},
    ]
    requests = [chat_model.request(messages, max_new_tokens=150, seed=5, **RANDOM, **form) for form in forms]
    first, second, third, free, last = [
        generation.result().text for generation in map(chat_model.engine.submit, requests)
    ]
    Receipt.model_validate_json(first)
    assert re.fullmatch(r"[A-F]{3}-\d{2,4}", second)
    assert third in forms[2]["choices"]
    assert free == chat_model.generate(text=TEXT, max_new_tokens=150, seed=5, **RANDOM)
    assert last.lower() in ("yes", "no")


def test_only_what_ends_an_answer_is_possible_beside_words_and_only_where_it_may_end(chat_model: ChatModel):
    tokenizer, ids = chat_model.processor.tokenizer, chat_model.processor.ids
    size = chat_model.model.config.text_config.vocab_size
    constraint = chat_model.grammars.regex(r"ab?.*")()
    special, stops = set(tokenizer.added_tokens_decoder), {ids.im_end, tokenizer.eos_token_id}

    def possible() -> set[int]:
        return set(torch.isfinite(constraint.mask(torch.zeros(size))).nonzero()[:, 0].tolist())

    assert {tokenizer.decode([one])[0] for one in possible()} == {"a"}
    assert not constraint.accept(tokenizer.encode("a")[0])
    assert possible() & special == stops


def test_an_answer_that_can_only_end_ends(chat_model: ChatModel):
    answer = chat_model.answer(text=TEXT, choices=["red"])
    assert (answer.text, answer.finish_reason) == ("red", "stop")
    assert len(answer.tokens) == len(chat_model.processor.tokenizer.encode("red"))


def test_logits_are_left_as_they_are(chat_model: ChatModel):
    logits = torch.zeros(chat_model.model.config.text_config.vocab_size)
    chat_model.grammars.choices(["a"])().mask(logits)
    assert not logits.any()


def test_log_probabilities_are_the_models_own(chat_model: ChatModel):
    answer = chat_model.answer(text=TEXT, regex="[0-9]{3}", logprobs=1)
    assert all(one.logprob <= one.top[0][1] for one in answer.logprobs)
    assert any(one.token != one.top[0][0] for one in answer.logprobs)


def test_streams_and_batches_and_chats_keep_the_form(chat_model: ChatModel):
    option = {"regex": "[0-9]{2} (red|blue)", "seed": 1, **RANDOM}
    answer = chat_model.generate(text=TEXT, **option)
    assert "".join(chat_model.stream(text=TEXT, **option)) == answer
    assert chat_model.generate_batch(None, [TEXT, TEXT], **option) == [answer, answer]
    assert chat_model.start_chat().ask(TEXT, **option) == answer


def test_what_is_broken_off_is_never_taken_for_an_answer(chat_model: ChatModel):
    option = {"regex": "[a-z]{100}", "max_new_tokens": 5}
    with pytest.raises(UnfinishedAnswer, match="broken off by max_new_tokens=5 before it was complete") as raised:
        chat_model.generate(text=TEXT, **option)
    assert len(raised.value.completion.tokens) == 5
    with pytest.raises(UnfinishedAnswer):
        list(chat_model.stream(text=TEXT, **option))
    with pytest.raises(UnfinishedAnswer):
        chat_model.generate_batch(None, [TEXT], **option)
    chat = chat_model.start_chat()
    with pytest.raises(UnfinishedAnswer):
        chat.ask(TEXT, **option)
    assert chat.messages == []


def test_it_goes_on_behind_a_preemption(chat_model: ChatModel):
    memory = 5 * GROWTH * cache_bytes_per_token(chat_model.model.config.text_config, torch.float32)
    engine = Engine(chat_model.model, chat_model.processor, cache_memory=memory, reuse=False)
    constraint = chat_model.grammars.regex("([a-z][0-9]){120}")
    prompt = chat_model.processor.encode([{"role": "user", "content": TEXT}], add_generation_prompt=True)
    requests = [Request(prompt, 250, Sampling(1.0, seed=seed), constraint=constraint) for seed in range(2)]
    for generation in [engine.submit(request) for request in requests]:
        assert re.fullmatch("([a-z][0-9]){120}", generation.result().text)
    assert engine.preemptions


# What is refused.


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ({"json_schema": {"type": "objekt"}}, "json_schema cannot be followed: Invalid type: objekt"),
        ({"json_schema": {"not": {}}}, 'json_schema cannot be followed: Unimplemented keys: ["not"]'),
        ({"json_schema": {"enum": []}}, "json_schema cannot be followed: Unsatisfiable schema: anyOf is empty"),
        ({"json_schema": "{"}, "json_schema is a string but no JSON"),
        ({"json_schema": "[1]"}, "json_schema must be a JSON schema"),
        ({"json_schema": 3}, "json_schema must be a JSON schema"),
        ({"json_schema": {"const": object()}}, "json_schema cannot be written as JSON"),
        ({"regex": "a("}, "regex cannot be followed: unclosed group"),
        ({"regex": "(?=a)a"}, "regex cannot be followed: look-around, including look-ahead and look-behind"),
        ({"regex": 3}, "regex must be a string, not int"),
        ({"choices": []}, "choices=[] must be a list of strings"),
        ({"choices": "ab"}, "choices='ab' must be a list of strings"),
        ({"choices": ["a", 3]}, "choices=['a', 3] must be a list of strings"),
        ({"json_schema": {"enum": ["x" * 70_000]}}, "json_schema has 70014 bytes, of at most 65536"),
        ({"json_schema": deep(10_000)}, "json_schema has 100002 bytes, of at most 65536"),
        ({"json_schema": deep(5000)}, "json_schema is a string but no JSON (maximum recursion depth"),
        ({"json_schema": deep(300)}, "json_schema cannot be followed: recursion limit exceeded"),
        ({"regex": "ä" * 40_000}, "regex has 80000 bytes, of at most 65536"),
        ({"choices": ["a" * 10] * 10_000}, "choices has 149997 bytes, of at most 65536"),
        ({"choices": ["a"], "regex": "a"}, "regex and choices both say what the answer must look like"),
        ({"choices": ["a"], "stop": "."}, "stop would cut the answer out of its form"),
    ],
)
def test_a_wrong_form_is_refused_in_one_sentence(chat_model: ChatModel, option: dict[str, Any], sentence: str):
    with pytest.raises(ValueError, match=re.escape(sentence)) as raised:
        chat_model.generate(text=TEXT, **option)
    assert "\n" not in str(raised.value)


def test_a_form_that_is_too_much_work_is_refused(chat_model: ChatModel, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constraint, "COMPILING", {"initial_lexer_fuel": 100, "max_grammar_size": 500_000})
    fresh = ChatModel(chat_model.model, chat_model.processor)
    with pytest.raises(ValueError, match=r"cannot be followed: .* \(limit for this grammar: 100\)") as raised:
        fresh.generate(text=TEXT, regex=r"(\w{1,50}\s){1,500}")
    assert "\n" not in str(raised.value)
    assert fresh.generate(text=TEXT, regex="[0-9]")


def test_a_form_that_turns_out_to_be_too_much_work_is_refused(chat_model: ChatModel, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(constraint.FOLLOWING, "step_lexer_fuel", 50)
    fresh = ChatModel(chat_model.model, chat_model.processor)
    with pytest.raises(constraint.TooMuchWork, match="the form takes too much work to follow, ask for a"):
        fresh.generate(text=TEXT, regex="(.|..){0,300}b(.|...){0,300}c")
    assert fresh.generate(text=TEXT, regex="[0-9]")


def test_without_the_extra_one_sentence_says_so(tiny_checkpoint: Path, chat_model: ChatModel, monkeypatch: Any):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    alone = ChatModel(chat_model.model, chat_model.processor)
    with pytest.raises(ValueError, match=re.escape("pip install 'neo-vlm[guided]'")):
        alone.generate(text=TEXT, choices=["a"])


# The command line.


def test_neo_ask_keeps_the_form(run: Any, tiny_checkpoint: Path, tmp_path: Path):
    (tmp_path / "schema.json").write_text(json.dumps({"type": "object", "properties": {"a": {"type": "null"}}}))
    ask = ("ask", TEXT, "--model", tiny_checkpoint)
    assert run(*ask, "--choices", "red, blue").strip() in ("red", "blue")
    assert re.fullmatch("[0-9]{4}\n", run(*ask, "--regex", "[0-9]{4}"))
    (tmp_path / "schema.json").write_text(json.dumps({"enum": [{"a": None}]}))
    assert json.loads(run(*ask, "--json-schema", tmp_path / "schema.json")) == {"a": None}


def test_neo_ask_refuses_a_wrong_form(refuse: Any, tiny_checkpoint: Path, tmp_path: Path):
    ask = ("ask", TEXT, "--model", tiny_checkpoint)
    assert "no.json: cannot read the schema" in refuse(*ask, "--json-schema", tmp_path / "no.json")
    assert "unclosed group" in refuse(*ask, "--regex", "a(")
    assert "was broken off by max_new_tokens=3" in refuse(*ask, "--regex", "[a-z]{90}", "--max-new-tokens", "3")
