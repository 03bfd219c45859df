"""Recipes: a YAML file with the fields of `TrainConfig`, any of which the command line overrides by its dotted name."""

import difflib
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from neo.training.config import TrainConfig

KINDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a recipe.

    Args:
        path: YAML file with the fields of `TrainConfig`.
        overrides: command-line words: `["--steps", "100", "--optimizer.learning_rate=1e-4"]`.

    Raises:
        ValueError: no such file, an unknown field (the nearest name is given), or a value that does not fit.
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
    return make_config(override(values, overrides), f"{path}: ")


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
        *parents, last = name.removeprefix("--").split(".")
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
    _check_dict(value, where, name)
    prefix = f"{name}." if name else ""
    hints = get_type_hints(kind)
    for key in value:
        if key not in hints:
            nearest = difflib.get_close_matches(str(key), hints, n=1, cutoff=0.0)[0]
            raise ValueError(f"{where}{prefix}{key} is not a field; did you mean {nearest}?")
    missing = [one.name for one in fields(kind) if one.name not in value and one.default is one.default_factory]
    if missing:
        raise ValueError(f"{where}{prefix}{missing[0]} is missing; every run needs it")
    values = {key: made(hints[key], one, where, prefix + key) for key, one in value.items()}
    try:
        return kind(**values)
    except ValueError as error:
        place = f"{name}: " if name and not str(error).startswith(name) else ""
        raise ValueError(f"{where}{place}{error}") from error


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
