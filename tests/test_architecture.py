"""The rooms of src/neo and who may know whom, read from the source."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "neo"
ALLOWED = {
    "model": set(),
    "processing": {"model.config"},
    "synthetic": set(),
    "data": {"processing", "synthetic", "model.config"},
    "training": {"model", "processing", "data", "synthetic"},
    "inference": {"model", "processing"},
    "interpret": {"model", "processing", "inference"},
    "serving": {"model", "processing", "inference"},
    "evaluation": {"model", "processing", "data", "synthetic", "inference"},
    "cli": {"model", "processing", "synthetic", "data", "training", "inference", "interpret", "serving", "evaluation"},
}
"""Room to the rooms, or modules of rooms, that it may import; itself and `ANYWHERE` always."""
TOP = {"__init__.py", "__main__.py", "registration.py", "suggestion.py", "version.py"}
"""Modules outside the rooms: they put the rooms together, or are for all of them (`ANYWHERE`)."""
ANYWHERE = ("suggestion", "version")
FILES = sorted(SOURCE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports, also inside functions; relative ones resolved."""
    package = ["neo", *path.relative_to(SOURCE).parent.parts]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from neo import model` and `from neo.model import config` name modules after the `import`.
            found |= {f"{module}.{alias.name}" if module.startswith("neo") else module for alias in node.names}
    return found


def name_of(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def test_every_file_is_in_a_known_room() -> None:
    assert {path.relative_to(SOURCE).parts[0] for path in FILES} - TOP <= ALLOWED.keys()


@pytest.mark.parametrize("path", [path for path in FILES if path.parent != SOURCE], ids=name_of)
def test_rooms_know_only_those_below(path: Path) -> None:
    room = path.relative_to(SOURCE).parts[0]
    allowed = {f"neo.{name}" for name in (room, *ANYWHERE, *ALLOWED[room])}
    strangers = {
        name
        for name in imports(path)
        if name.partition(".")[0] == "neo" and not any(f"{name}.".startswith(f"{known}.") for known in allowed)
    }
    assert not strangers, f"{name_of(path)} imports {sorted(strangers)}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_source_knows_nothing_around_it(path: Path) -> None:
    outside = {name.partition(".")[0] for name in imports(path)}
    assert not outside & {"recipes", "examples", "benchmarks", "tests", "torchvision"}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_the_command_line_prints(path: Path) -> None:
    calls = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not calls or path.name == f"{name_of(path)} prints in lines {calls}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_stay_readable(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500
