"""`neo data ...` as people call it."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_data
import yaml
from PIL import Image

from neo.cli import main
from neo.cli.data import TOOLS
from neo.data.index import Index, open_indices
from neo.data.mixture import open_sources
from neo.data.sources.lines import JsonLines
from neo.training import load_recipe
from neo.training.config import ModelConfig
from neo.training.start import start

TURNS = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "Red."}]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Three records, all well."""
    Image.new("RGB", (64, 48), "red").save(tmp_path / "red.png")
    path = tmp_path / "mine.jsonl"
    records = [
        {"image": "red.png", "messages": TURNS},
        {"text": "Words alone."},
        {"text": "More words.", "family": "\x1b[31mtext"},
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def recipe(tmp_path: Path, file: Path) -> Path:
    """A recipe of that file and drawn pictures, whose model is not here yet."""
    sources = {"photos": {"path": str(file)}, "drawn": {"kind": "synthetic", "families": {"color": 1}, "size": 30}}
    fields = {
        "stage": "sft",
        "model": {"path": str(tmp_path / "model")},
        "data": {"sources": sources, "max_seq_length": 15},
        "output_dir": str(tmp_path / "run"),
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(fields, sort_keys=False))
    return tmp_path / "recipe.yaml"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run `neo data ...`: exit code, stdout, stderr."""

    def run(*words: Any) -> tuple[int, str, str]:
        code = main(["data", *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def refuse(run: Callable[..., tuple[int, str, str]]) -> Callable[..., str]:
    """Run what is refused; its one sentence."""

    def refuse(*words: Any) -> str:
        code, out, err = run(*words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("neo: ")
        return err

    return refuse


@pytest.mark.parametrize("tool", TOOLS)
def test_every_tool_has_help_with_an_example(tool: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words, example in (
        (["data", "--help"], f"\n  neo data {tool} "),
        (["data", tool, "--help"], f"\n  neo data {tool} "),
    ):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0
        assert example in capsys.readouterr().out


def test_mistakes_are_one_sentence(refuse: Callable[..., str], file: Path, recipe: Path, tmp_path: Path) -> None:
    assert "which tool? index, check, stats, preview or convert" in refuse()
    assert "has no tool 'frob'" in refuse("frob")
    assert "neo data check needs a source" in refuse("check")
    assert "neo data convert needs an output" in refuse("convert", file)
    assert "there is no such file of records" in refuse("check", tmp_path / "none.jsonl")
    assert "its ending tells no kind of records" in refuse("stats", tmp_path / "red.png")
    assert "--workers must be a whole number" in refuse("check", file, "--workers", "two")
    assert "--workers must be at least 0" in refuse("check", file, "--workers", "-1")
    assert "--number must be at least 1" in refuse("stats", file, "--number", "0")
    assert "--number must be at least 1" in refuse("preview", file, "--number", "0")
    assert "no folder" in refuse("preview", file, "--output", tmp_path / "none" / "a.html")
    assert "unknown model 'neo-dem'" in refuse("check", file, "--model", "neo-dem")
    assert "belong to a file of records" in refuse("check", recipe, "--kind", "json")
    assert "there is no such recipe" in refuse("check", "none.yaml")
    assert "the model it starts from" in refuse("index", recipe, "--output", tmp_path / "index")
    file.unlink()  # what follows is said before records are read
    assert "needs --output" in refuse("index", file)
    assert "no data.index to write into" in refuse("index", recipe)


def test_check_of_good_records(run: Callable[..., tuple[int, str, str]], file: Path) -> None:
    code, out, err = run("check", file)
    assert (code, err) == (0, "")
    assert "3 records" in out
    assert "unreadable pictures" in out


def test_check_tells_what_is_wrong(run: Callable[..., tuple[int, str, str]], file: Path) -> None:
    with file.open("a") as more:
        more.write('{"text": "Words alone."}\n{"image": "none.png", "caption": "\\u001b[31mNothing."}\n')
    code, out, _ = run("check", file, "--max-seq-length", 12, "--workers", "0")
    assert code == 1
    assert f"duplicates:\n  {file}, line 4: the same as {file}, line 2" in out
    assert f"unreadable pictures:\n  {file}, line 5: " in out
    assert "too long:" in out
    code, out, _ = run("check", file, "--json", "--examples", 1)
    problems = json.loads(out)["problems"]
    assert code == 1
    assert problems["duplicates"]["records"] == 1
    assert problems["duplicates"]["examples"][0]["index"] == 3
    assert problems["too long"] == {"records": 0, "examples": []}


def test_a_recipe_gives_its_sources_and_length(run: Callable[..., tuple[int, str, str]], recipe: Path) -> None:
    code, out, _ = run("check", recipe, "--json", "--number", 5)
    report = json.loads(out)
    assert code == 1
    assert report["records"] == 3 + 5
    assert {one["source"] for one in report["problems"]["too long"]["examples"]} == {"photos", "drawn"}


def test_stats(run: Callable[..., tuple[int, str, str]], file: Path, recipe: Path, tmp_path: Path) -> None:
    code, out, err = run("stats", file, "--output", tmp_path / "stats")
    assert (code, err) == (0, "")
    assert "tokens measured with neo-demo" in out
    assert "family �[31mtext" in out
    assert (tmp_path / "stats" / "stats.png").is_file()
    assert json.loads((tmp_path / "stats" / "stats.json").read_text())["all"]["records"] == 3
    assert json.loads(run("stats", recipe, "--json")[1])["sources"]["drawn"]["records"] == 30


def test_preview(run: Callable[..., tuple[int, str, str]], recipe: Path, tmp_path: Path) -> None:
    code, out, err = run("preview", recipe, "--output", tmp_path / "page.html", "--number", 8)
    assert (code, out, err) == (0, f"{tmp_path / 'page.html'}\n", "")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<article") == 8
    assert "recipe.yaml, as neo-demo sees it" in page
    assert "longer than 15 tokens" in page


def test_convert(
    run: Callable[..., tuple[int, str, str]], refuse: Callable[..., str], file: Path, tmp_path: Path
) -> None:
    assert run("convert", file, tmp_path / "a.tar") == (0, f"{tmp_path / 'a.tar'}: 3 records\n", "")
    assert "--overwrite puts the new one in its place" in refuse("convert", file, tmp_path / "a.tar")
    assert run("convert", tmp_path / "a.tar", tmp_path / "a.json", "--number", 2)[0] == 0
    assert run("convert", tmp_path / "a.json", tmp_path / "a.tar", "--overwrite")[1].endswith(": 2 records\n")
    file.write_text(file.read_text() + "{broken\n")
    assert "mine.jsonl, line 4: not JSON" in refuse("convert", file, tmp_path / "b.parquet")
    code, out, _ = run("convert", file, tmp_path / "b.parquet", "--skip-bad")
    assert (code, out) == (0, f"{tmp_path / 'b.parquet'}: 3 records, 1 left out\n")


def test_index_of_a_file(
    run: Callable[..., tuple[int, str, str]], refuse: Callable[..., str], file: Path, tmp_path: Path
) -> None:
    code, out, _ = run("index", file, "--output", tmp_path / "index", "--workers", 0)
    assert code == 0
    assert out.startswith(f"{tmp_path / 'index'}: 3 records, ")
    assert len(Index(tmp_path / "index")) == 3
    (tmp_path / "taken").touch()
    assert "taken: where the records of mine.jsonl begin cannot be kept here" in refuse(
        "index", file, "--output", tmp_path / "taken"
    )


def test_index_of_a_recipe_is_the_one_that_its_run_wants(
    run: Callable[..., tuple[int, str, str]], recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the model is still to be grown, with other picture sizes."""
    tiny_data.make_language_model(tmp_path / "llm", tied=True)
    fields = yaml.safe_load(recipe.read_text())
    fields["stage"] = "pt"
    fields["model"] = {"from_llm": str(tmp_path / "llm"), "pre_buffer_layers": 1, "vision": {"min_pixels": 2048}}
    fields["data"]["index"] = str(tmp_path / "indices")
    recipe.write_text(yaml.safe_dump(fields, sort_keys=False))
    code, out, _ = run("index", recipe, "--workers", 0)
    assert (code, out.count("\n")) == (0, 1)
    config = load_recipe(recipe)
    monkeypatch.setattr(JsonLines, "scan", None)  # where records begin is kept: a run looks for them no more
    sources = open_sources(config.data)
    assert isinstance(config.model, ModelConfig)
    _, processor = start(config.model, config.stage, None, config.seed)  # type: ignore[arg-type]
    indices = open_indices(config.data, sources, processor)
    assert [index and len(index) for index in indices] == [3, None]


@pytest.mark.parametrize(
    ("tool", "shown", "words"),
    [
        ("check", "checking", []),
        ("convert", "converting", ["{folder}/a.tar"]),
        ("preview", "drawing", ["--output", "{folder}/a.html"]),
    ],
)
def test_progress_is_shown_to_people_only(
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tool: str,
    shown: str,
    words: list[str],
) -> None:
    screen = io.StringIO()
    screen.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", screen)
    assert main(["data", tool, str(file), *(word.format(folder=file.parent) for word in words)]) == 0
    assert shown in screen.getvalue()
    assert shown not in capsys.readouterr().out


def test_an_interrupt_ends_it(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("neo.data.tools.convert.picture_file", interrupted)
    assert main(["data", "convert", str(file), str(tmp_path / "a.tar")]) == 130
    assert not [path for path in tmp_path.iterdir() if path.name.endswith("partial")]
