"""Answers held to a JSON schema, a regular expression or a list of choices, token by token.

Before each token all those are ruled out behind which the answer could no longer come out right; the tokens that end an
answer are possible exactly where it may end, other special tokens never. llguidance follows the grammar (chosen by
measurement, see docs/inference.md).

What the model would rather say does not matter to a grammar: ask for JSON in the question as well.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from neo.inference.generation import Completion, Constraint

if TYPE_CHECKING:
    from llguidance import LLMatcher

WHITESPACE = r"([ ]|\n[ ]{0,32})?"
"""Between the parts of JSON, as `json.dumps` writes it with and without `indent`. It ends, so that a model cannot fill
its answer with blanks."""

MOST_BYTES = 64 * 1024
"""Of a schema, a regular expression, or all choices together. What is as long is compiled in a quarter of a second."""
COMPILING: dict[str, Any] = {"initial_lexer_fuel": 1_000_000, "max_grammar_size": 500_000}
"""Bounds of the work on a form: steps, of which 50 000 take about a millisecond, and symbols of its grammar."""
FOLLOWING: dict[str, Any] = {"step_lexer_fuel": 200_000, "step_max_items": 50_000, "max_lexer_states": 250_000}
"""Bounds of the work before each token, of which 14 000 or 20 000 take about a millisecond, and of all that is kept."""

Schema = str | Mapping[str, Any] | type
"""A JSON schema as a dict or as text, or a pydantic class, of which the answer has the fields and no others."""


class UnfinishedAnswer(ValueError):
    """An answer that was to have a form and was broken off before it was complete; `completion` is what there is."""

    def __init__(self, completion: Completion, limit: int) -> None:
        why = f"max_new_tokens={limit}" if completion.finish_reason == "length" else completion.finish_reason
        super().__init__(
            f"the answer was broken off by {why} before it was complete in the form asked for: "
            f"{_end_of(completion.text)}; allow more"
        )
        self.completion = completion


class TooMuchWork(ValueError):
    """A form turned out to be more work to follow than llguidance's limits allow."""


class Grammars:
    """Makes what answers are held to, for one model."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocab_size: int, stop_ids: Collection[int]) -> None:
        """Learn the vocabulary; takes seconds for 150 000 words, so one serves all requests.

        Args:
            tokenizer: the model's.
            vocab_size: number of the model's logits, at least that of the tokenizer's words.
            stop_ids: tokens that end an answer.

        Raises:
            ValueError: the extra is not installed.
        """
        try:
            import llguidance
        except ImportError as error:
            raise ValueError(
                "json_schema, regex and choices need llguidance: install the extra with pip install 'neo-vlm[guided]'"
            ) from error
        self._matcher = llguidance.LLMatcher
        self._limits = llguidance.LLParserLimits(**COMPILING, **FOLLOWING)
        self._tokenizer = llguidance.LLTokenizer(
            tokenizer.backend_tokenizer.to_str(), n_vocab=vocab_size, eos_token=min(stop_ids)
        )
        words_V = np.zeros(vocab_size, bool)
        words_V[: len(tokenizer)] = True
        words_V[list(tokenizer.added_tokens_decoder)] = False
        self._words_V, self._stop_ids = words_V, list(stop_ids)

    def json_schema(self, schema: Schema) -> Callable[[], Constraint]:
        """JSON that is valid by a schema, its properties in the schema's order.

        Raises:
            ValueError: it is no schema, has a part that cannot be followed token by token (`not`, `if`,
                `uniqueItems`), nothing is valid by it, or it is longer than `MOST_BYTES`.
        """
        written = _short("json_schema", _schema(schema))
        options: Any = {"whitespace_pattern": WHITESPACE}
        try:
            grammar = self._matcher.grammar_from_json_schema(written, overrides=options)
        except ValueError as error:  # parts in parts in parts
            raise ValueError(f"json_schema cannot be followed: {error}") from error
        return self._constraint("json_schema", grammar)

    def regex(self, pattern: str) -> Callable[[], Constraint]:
        """Text that a regular expression matches as a whole; in the syntax of Rust, without look-around and `\\1`.

        Raises:
            ValueError: it is none, or longer than `MOST_BYTES`.
        """
        if not isinstance(pattern, str):
            raise ValueError(f"regex must be a string, not {type(pattern).__name__}")
        return self._constraint("regex", self._matcher.grammar_from_regex(_short("regex", pattern)))

    def choices(self, choices: Sequence[str]) -> Callable[[], Constraint]:
        """One of several texts.

        Raises:
            ValueError: there are none, one is no text, or they are longer than `MOST_BYTES`.
        """
        listed = [] if isinstance(choices, str) else list(choices)
        if not listed or not all(isinstance(one, str) and one for one in listed):
            raise ValueError(f"choices={choices!r} must be a list of strings that are not empty")
        written = " | ".join(json.dumps(one, ensure_ascii=False) for one in listed)
        return self._constraint("choices", self._matcher.grammar_from_lark(f"start: {_short('choices', written)}"))

    def _constraint(self, name: str, grammar: str) -> Callable[[], Constraint]:
        matcher = self._matcher(self._tokenizer, grammar, log_level=0, limits=self._limits)
        if matcher.is_error():
            raise ValueError(f"{name} cannot be followed: {_sentence(matcher.get_error())}")
        return lambda: _Followed(matcher.deep_copy(), self._words_V, self._stop_ids)


class _Followed:
    """A `Constraint`: one answer's way through a grammar."""

    def __init__(self, matcher: "LLMatcher", words_V: np.ndarray, stop_ids: Sequence[int]) -> None:
        self._matcher, self._words_V, self._stop_ids = matcher, words_V, stop_ids

    def mask(self, logits_V: Tensor) -> Tensor:
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        allowed_V = np.unpackbits(bits, count=len(self._words_V), bitorder="little").view(bool) & self._words_V
        if self._matcher.is_accepting():
            allowed_V[self._stop_ids] = True
        if not allowed_V.any():
            raise RuntimeError("no token can go on with the answer")
        return logits_V.masked_fill(torch.from_numpy(~allowed_V).to(logits_V.device), float("-inf"))

    def accept(self, token: int) -> bool:
        taken = self._matcher.consume_token(token)
        self._check()
        if not taken:
            raise RuntimeError(f"token {token} cannot follow")
        return self._matcher.is_stopped()

    def _check(self) -> None:
        if not self._matcher.is_error():
            return
        error = _sentence(self._matcher.get_error())
        if "too many" in error or "limit" in error:  # llguidance has no other sign of it
            raise TooMuchWork(f"the form takes too much work to follow, ask for a simpler one: {error}")
        raise RuntimeError(f"llguidance failed: {error}")


def _schema(schema: Schema) -> str:
    """A schema as JSON text."""
    if hasattr(schema, "model_json_schema"):
        written = schema.model_json_schema()
        for model in (written, *written.get("$defs", {}).values()):
            if "properties" in model:  # or a model would invent further fields
                model.setdefault("additionalProperties", False)
        return json.dumps(written)
    if isinstance(schema, str):
        try:
            schema = json.loads(_short("json_schema", schema))
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"json_schema is a string but no JSON ({error})") from error
    if not isinstance(schema, Mapping):
        raise ValueError(
            f"json_schema must be a JSON schema (a dict or its JSON text) or a pydantic class, not {schema!r:.60}"
        )
    try:
        return json.dumps(dict(schema))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"json_schema cannot be written as JSON ({error})") from error


def _short(name: str, form: str) -> str:
    if (size := len(form.encode(errors="surrogatepass"))) > MOST_BYTES:
        raise ValueError(f"{name} has {size} bytes, of at most {MOST_BYTES}: ask for less in one answer")
    return form


def _sentence(error: str) -> str:
    """What is wrong, of the several lines in which a parser shows it."""
    lines = [line.strip() for line in error.splitlines()]
    causes = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (causes or lines or ["unknown error"])[0]


def _end_of(text: str) -> str:
    return repr(text if len(text) <= 60 else "..." + text[-60:])
