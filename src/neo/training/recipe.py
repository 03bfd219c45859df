"""Recipes: a YAML file with the fields of `TrainConfig`, any of which the command line overrides by its dotted name."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from neo.suggestion import nearest, suggestion
from neo.training.config import TrainConfig

ELSEWHERE = {
    "epochs": "steps (a recipe counts steps, not epochs)",
    "num_train_epochs": "steps (a recipe counts steps, not epochs)",
    "max_steps": "steps",
    "batch_size": "data.rows_per_batch",
    "per_device_train_batch_size": "data.rows_per_batch (of all devices together)",
    "gradient_accumulation_steps": "micro_batch_rows",
    "lr": "optimizer.learning_rate",
    "warmup_ratio": "optimizer.warmup_fraction",
    "lr_scheduler_type": "optimizer.schedule",
    "max_grad_norm": "optimizer.clip",
    "max_length": "data.max_seq_length",
    "save_steps": "save_every",
    "logging_steps": "log_every",
    "save_total_limit": "keep",
    "gradient_checkpointing": "activation_checkpointing",
}
"""What `neo.training.train` and other trainers call a field, and its name in a recipe."""
KINDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a recipe.

    Args:
        path: YAML file with the fields of `TrainConfig`.
        overrides: command-line words: `["--steps", "100", "--optimizer.learning_rate=1e-4"]`; `--set.steps` is
            `--steps`, too.

    Raises:
        ValueError: no such file, an unknown field (a name like it is given), or a value that does not fit; the message
            tells whether the file is wrong or the command line.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: there is no such recipe")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a recipe holds fields of the form 'name: value'")
    try:
        return make_config(override(copy.deepcopy(values), overrides))
    except ValueError as error:
        in_file = str(error) == _complaint(values)
        raise ValueError(f"{path if in_file else 'on the command line'}: {error}") from error


def _complaint(values: dict[str, Any]) -> str | None:
    """What is wrong with a recipe by itself."""
    try:
        make_config(values)
    except ValueError as error:
        return str(error)
    return None


def override(values: dict[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """The values with those of the command line put in.

    Raises:
        ValueError: a word is neither the name of a field nor its value.
    """
    rest = list(words)
    while rest:
        name, equals, text = rest.pop(0).partition("=")
        if not name.startswith("--") or not (equals or rest):
            raise ValueError(f"{name!r} is not an override; write --name value or --name=value")
        *parents, last = name.removeprefix("--").removeprefix("set.").split(".")
        place = values
        for parent in parents:
            if place.get(parent) is None:
                place[parent] = {}
            place = place[parent]
            if not isinstance(place, dict):
                raise ValueError(f"{name}: {parent} is one value and has no fields")
        text = text if equals else rest.pop(0)
        try:
            place[last] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"{name}: {text!r} is not a value in YAML ({' '.join(str(error).split())})") from error
    return values


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """What has changed from the plain values of one recipe to those of another, as "steps (100, now 200)"."""
    if isinstance(before, dict) and isinstance(now, dict):
        prefix = f"{name}." if name else ""
        both = [(key, before.get(key), now.get(key)) for key in dict.fromkeys([*before, *now])]
        return [one for key, old, new in both for one in differences(old, new, f"{prefix}{key}")]
    return [] if before == now else [f"{name} ({before}, now {now})"]


def make_config(values: dict[str, Any], where: str = "") -> TrainConfig:
    """The configuration of the plain values of a recipe; `where` begins messages.

    Raises:
        ValueError: as `load_recipe`.
    """
    return made(TrainConfig, values, where)


def made(kind: Any, value: Any, where: str, name: str = "") -> Any:
    """A value as a type asks for it, dataclasses made of their fields.

    Args:
        kind: a dataclass, or what its fields are annotated with.
        value: as YAML has it.
        where: what messages begin with.
        name: dotted name of the value, for messages.

    Raises:
        ValueError: it does not fit, or names a field that there is not.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if value is None and NoneType in arguments:
            return None
        kinds = [one for one in arguments if one is not NoneType]
        lists = [one for one in kinds if (get_origin(one) is list) == isinstance(value, list)]
        return made((lists or kinds)[0], value, where, name)
    if is_dataclass(kind):
        return _dataclass(kind, value, where, name)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{where}{name}={value!r} must be one of {', '.join(map(str, arguments))}")
        return value
    if origin is list:
        if not isinstance(value, list):
            raise ValueError(f"{where}{name}={value!r} must be a list")
        return [made(arguments[0], one, where, f"{name}[{number}]") for number, one in enumerate(value)]
    if origin is dict:
        _check_dict(value, where, name)
        return {str(key): made(arguments[1], one, where, f"{name}.{key}") for key, one in value.items()}
    return value if kind is Any else _scalar(kind, value, where, name)


def _dataclass(kind: Any, value: Any, where: str, name: str) -> Any:
    if name and not isinstance(value, dict):
        first = f"{name}.{fields(kind)[0].name}"
        raise ValueError(f"{where}{name}={value!r} cannot be: {name} has fields, such as {first}; set one of them")
    _check_dict(value, where, name)
    prefix = f"{name}." if name else ""
    hints = get_type_hints(kind)
    for key in value:
        if key not in hints:
            raise ValueError(f"{where}{prefix}{key} is not a field{meant(str(key), prefix, hints)}")
    missing = [one.name for one in fields(kind) if one.name not in value and one.default is one.default_factory]
    if missing:
        raise ValueError(f"{where}{prefix}{missing[0]} is missing; every run needs it")
    values = {key: made(hints[key], one, where, prefix + key) for key, one in value.items()}
    try:
        return kind(**values)
    except ValueError as error:
        place = f"{name}: " if name and not str(error).startswith(name) else ""
        raise ValueError(f"{where}{place}{error}") from error


def meant(name: str, prefix: str = "", siblings: Iterable[str] = ()) -> str:
    """The end of a sentence about a field that there is not: the one that was meant, if that can be told.

    Args:
        name: its name.
        prefix: what it is a field of, as `optimizer.`.
        siblings: the fields of that, thought of before those elsewhere in a recipe.
    """
    near = nearest(name, siblings)
    if prefix and near:
        return f"; did you mean {prefix}{near}?"
    if elsewhere := ELSEWHERE.get(name.replace("-", "_")):
        return f"; did you mean {elsewhere}?"
    if near:
        return f"; did you mean {near}?"
    places = _places(TrainConfig)
    near = nearest(name, places)
    return f"; did you mean {places[near]}?" if near else suggestion(name, siblings)


def _places(kind: Any, prefix: str = "") -> dict[str, str]:
    """Names of fields, at any depth of a dataclass, to their dotted names."""
    places: dict[str, str] = {}
    for name, hint in get_type_hints(kind).items():
        places.setdefault(name, prefix + name)
        for inner in filter(is_dataclass, (hint, *get_args(hint))):
            deeper = f"{prefix}{name}." + ("NAME." if get_origin(hint) is dict else "")
            places = _places(inner, deeper) | places
    return places


def _check_dict(value: Any, where: str, name: str) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{where}{name} must hold fields of the form 'name: value', not {value!r}")


def _scalar(kind: type, value: Any, where: str, name: str) -> Any:
    if kind is float and isinstance(value, str):
        try:
            return float(value)  # YAML takes 5e-5, without a point, for a text
        except ValueError:
            pass
    plain = not isinstance(value, bool)
    if kind is float and isinstance(value, int) and plain:
        return float(value)
    if kind is str and isinstance(value, int | float) and plain:
        return str(value)  # a folder that is called 2026
    if not isinstance(value, kind) or (kind is int and not plain):
        raise ValueError(f"{where}{name}={value!r} must be {KINDS[kind]}")
    return value
