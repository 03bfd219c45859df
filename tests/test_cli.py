import io
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_checkpoint import TEXTS, tiny_checkpoint
from transformers import Qwen3Config, Qwen3ForCausalLM

import neo
from neo.cli import COMMANDS, main
from neo.inference.chat import ChatModel
from neo.processing.tokenizer import train_tokenizer

__all__ = ["tiny_checkpoint"]

QUESTION = "What color is the circle?"
SHORT = ["--max-new-tokens", "12"]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    file = tmp_path / "picture.png"
    Image.radial_gradient("L").resize((96, 64)).convert("RGB").save(file)
    return file


@pytest.fixture
def other_picture(tmp_path: Path) -> Path:
    file = tmp_path / "other.png"
    Image.linear_gradient("L").resize((64, 64)).convert("RGB").save(file)
    return file


@pytest.fixture
def model(tiny_checkpoint: Path) -> list[str]:
    return ["--model", str(tiny_checkpoint)]


@pytest.fixture
def loaded(tiny_checkpoint: Path) -> ChatModel:
    return neo.load_model(str(tiny_checkpoint))


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Put something into stdin."""
    return lambda content: monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), "utf-8"))


def command(*words: Any, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess:
    """Run `neo` as a program."""
    line = [sys.executable, "-m", "neo", *map(str, words)]
    return subprocess.run(line, input=stdin, capture_output=True, check=False, env={**os.environ, **(env or {})})


# Help and version.


def test_help_is_quick():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert b"ask a question about pictures" in command("--help").stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5  # measured: 0.17


@pytest.mark.parametrize("name", ["ask", "bench", "chat", "info", "init", "train"])
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"\n  neo {name}" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"neo {neo.__version__}\n"


# neo ask


def test_the_answer_alone_is_on_stdout(picture: Path, model: list[str], loaded: Any):
    done = command("ask", picture, QUESTION, *model, *SHORT)
    assert done.returncode == 0
    assert done.stderr == b""
    assert done.stdout.decode() == loaded.generate(image=picture, text=QUESTION, max_length=12) + "\n"


def test_several_pictures_none_and_options_anywhere(
    run: Callable, picture: Path, other_picture: Path, model: list[str], loaded: Any
):
    about_two = loaded.generate(image=[picture, other_picture], text=QUESTION, max_length=12, system="Be brief.")
    options = [*SHORT, "--system", "Be brief."]
    assert run("ask", picture, other_picture, QUESTION, *model, *options) == about_two + "\n"
    assert run("ask", *model, picture, *options, other_picture, QUESTION) == about_two + "\n"
    assert run("ask", *model, *options, "--", picture, other_picture, QUESTION) == about_two + "\n"
    assert run("ask", QUESTION, *model, *SHORT) == loaded.generate(text=QUESTION, max_length=12) + "\n"


def test_json(run: Callable, picture: Path, model: list[str], loaded: Any):
    answer = json.loads(run("ask", picture, QUESTION, "--json", *model, *SHORT))
    assert 0 < answer.pop("seconds") < 60
    assert answer == {
        "model": model[1],
        "images": [str(picture)],
        "question": QUESTION,
        "answer": loaded.generate(image=picture, text=QUESTION, max_length=12),
        "new_tokens": 12,
    }


def test_several_answers(run: Callable, refuse: Callable, model: list[str], loaded: Any):
    words = ["ask", QUESTION, "--n", 3, "--temperature", 1, "--seed", 5, *model, *SHORT]
    answers = loaded.generate(text=QUESTION, n=3, temperature=1.0, seed=5, max_length=12)
    assert run(*words) == "".join(answer + "\n" for answer in answers)
    written = json.loads(run(*words, "--json"))
    assert written["answers"] == answers
    assert "answer" not in written
    assert written["new_tokens"] == 36
    assert "leave out --stream" in refuse(*words, "--stream")
    assert "n=0 must be a whole number from 1" in refuse("ask", QUESTION, "--n", 0, *model)


def test_stream(run: Callable, picture: Path, model: list[str]):
    plain = run("ask", picture, QUESTION, *model, *SHORT)
    assert run("ask", picture, QUESTION, "--stream", *model, *SHORT) == plain


def test_sampling_options(run: Callable, picture: Path, model: list[str], loaded: Any):
    options = [
        "--temperature",
        "0.8",
        "--top-p=0.9",
        "--top-k",
        "40",
        "--seed",
        "3",
        "--dtype",
        "fp32",
        "--device",
        "cpu",
    ]
    sampled = loaded.generate(image=picture, text="x", max_length=12, temperature=0.8, top_p=0.9, top_k=40, seed=3)
    assert run("ask", picture, "x", *model, *SHORT, *options) == sampled + "\n"


def test_a_picture_from_stdin(run: Callable, give: Callable, picture: Path, other_picture: Path, model: list[str]):
    by_path = run("ask", other_picture, picture, QUESTION, *model, *SHORT)
    give(picture.read_bytes())
    assert run("ask", other_picture, "-", QUESTION, *model, *SHORT) == by_path
    done = command("ask", other_picture, "-", QUESTION, *model, *SHORT, stdin=picture.read_bytes())
    assert done.stdout.decode() == by_path


def test_the_question_from_stdin(run: Callable, give: Callable, picture: Path, model: list[str]):
    by_word = run("ask", picture, QUESTION, *model, *SHORT)
    give(QUESTION.encode() + b"\n")
    assert run("ask", picture, "-", *model, *SHORT) == by_word


def test_a_reader_that_goes_away(picture: Path, model: list[str]):
    words = f'ask "{picture}" x --model "{model[1]}" --stream --max-new-tokens 400'
    line = f'"{sys.executable}" -m neo {words} | head -c 1'
    done = subprocess.run(line, shell=True, capture_output=True, check=False)
    assert done.stderr == b""


def test_bad_pictures(refuse: Callable, give: Callable, model: list[str], tmp_path: Path):
    assert "missing.png" in refuse("ask", tmp_path / "missing.png", "x", *model)
    (tmp_path / "text.png").write_text("no picture")
    assert "text.png" in refuse("ask", tmp_path / "text.png", "x", *model)
    (tmp_path / "empty.png").touch()
    assert "empty.png" in refuse("ask", tmp_path / "empty.png", "x", *model)
    Image.new("RGB", (20000, 3)).save(tmp_path / "thin.png")
    assert "20000 x 3" in refuse("ask", tmp_path / "thin.png", "x", *model)
    assert str(tmp_path) in refuse("ask", tmp_path, "x", *model)
    give(b"")
    assert "stdin" in refuse("ask", "-", "x", *model)


def test_bad_questions(refuse: Callable, give: Callable, picture: Path, model: list[str]):
    assert "is a file where the question should be" in refuse("ask", picture, *model)
    assert "the question is empty" in refuse("ask", " ", *model)
    assert "only one word may be '-'" in refuse("ask", "-", "-", *model)
    assert "only one word may be '-'" in refuse("ask", "-", "-", "x", *model)
    assert "placeholders" in refuse("ask", picture, "<image><image>", *model)
    assert "half a character" in refuse("ask", "\udcff", *model)  # what Python makes of bytes that are not UTF-8
    assert "context is 2048" in refuse("ask", "word " * 3000, *model)
    give(b"")
    assert "the question is empty" in refuse("ask", "-", *model)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "which command"),
        (["sing"], "neo has no command 'sing'; choose one of ask, chat, "),
        (["ask"], "neo ask needs a question"),
        (["ask", "x", "--loud"], "--loud"),
        (["ask", "x", "--temp", "3"], "--temp"),
        (["ask", "x", "--temperature", "hot"], "--temperature must be a number, not 'hot'"),
        (["ask", "x", "--temperature"], "--temperature"),
        (["ask", "x", "--max-new-tokens", "2.5"], "--max-new-tokens must be a whole number, not '2.5'"),
        (["ask", "x", "--max-new-tokens", "-3"], "max_new_tokens=-3"),
        (["ask", "x", "--temperature", "-1"], "temperature=-1"),
        (["ask", "x", "--top-p", "0"], "top_p=0"),
        (["ask", "x", "--json", "--stream"], "choose one"),
        (["ask", "x", "--dtype", "int8"], "dtype='int8'"),
        (["ask", "x", "--device", "toaster"], "device='toaster'"),
        (["info", "a", "b"], "neo info does not take the word 'b'"),
        (["exprot"], "neo has no command 'exprot'; did you mean export? (neo --help lists what there is)"),
        (["--verson"], "neo has no option --verson; did you mean --version?"),
        (["data", "chekc", "x"], "neo data has no tool 'chekc'; did you mean check? (neo data --help lists"),
        (["data", "check", "x", "--exmples", "3"], "neo data check has no option --exmples; did you mean --examples?"),
        (["data", "check", "x", "--examples", "few"], "--examples must be a whole number, not 'few' (neo data check"),
        (["export", "--modell", "x"], "neo export has no option --modell; did you mean --model? (neo export --help"),
        (["export", "--quick", "--output", "x"], "has no option --quick; choose one of --model, --adapter, --output"),
        (["export", "--model"], "--model needs a value (neo export --help"),
        (["info", "a", "--preset", "2b"], "not both"),
        (["info", "--preset", "3b"], "unknown preset '3b'"),
        (["init", "--llm", "x"], "neo init needs --pre-buffer-layers and --output (neo init --help"),
    ],
)
def test_bad_words(refuse: Callable, model: list[str], words: list[str], sentence: str):
    words = [*words, *model] if words[:1] == ["ask"] and len(words) > 1 and words[-1] != "--temperature" else words
    assert sentence in refuse(*words)


def test_bad_models(refuse: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert "did you mean NEO-2B-SFT" in refuse("ask", "x", "--model", "NEO-2B-SFD")
    assert "hf download Paranioar/NEO1_0-2B-SFT" in refuse("ask", "x", "--model", "NEO-2B-SFT")
    assert "no config.json" in refuse("chat", "--model", tmp_path)
    assert "there is no such folder" in refuse("info", tmp_path / "missing")


def test_bad_input_to_the_program_leaves_no_traceback(tmp_path: Path):
    done = command("ask", tmp_path / "missing.png", "x")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().startswith("neo: ")
    assert done.stderr.count(b"\n") == 1


def test_a_folder_that_cannot_be_read(refuse: Callable, monkeypatch: pytest.MonkeyPatch):
    def fail(options: Any) -> int:
        raise PermissionError(13, "Permission denied", "/locked")

    monkeypatch.setitem(COMMANDS, "info", fail)
    assert "Permission denied: '/locked'" in refuse("info")


def test_an_interrupt(monkeypatch: pytest.MonkeyPatch, model: list[str]):
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("neo.inference.loading.load_model", interrupt)
    assert main(["ask", "x", *model]) == 130


# neo chat


def test_a_conversation_by_pipe(
    run: Callable, give: Callable, picture: Path, other_picture: Path, model: list[str], loaded: Any
):
    give(f"What?\n\nWhy?\n/image {other_picture}\nAnd here?\n/reset\nWhy?\n/quit\nnever asked\n".encode())
    lines = run("chat", picture, *model, *SHORT)
    talk = loaded.start_chat()
    expected = [talk.ask("What?", picture, max_length=12), talk.ask("Why?", max_length=12)]
    expected.append(talk.ask("And here?", other_picture, max_length=12))
    talk.reset()
    expected.append(talk.ask("Why?", max_length=12))
    assert lines == "".join(answer + "\n" for answer in expected)


def test_a_conversation_goes_on_after_a_mistake(give: Callable, model: list[str], loaded: Any, capsys: Any):
    give(b"/image missing.png\n/dance\n/help\nWhy?\n")
    assert main(["chat", *model, *SHORT]) == 2
    captured = capsys.readouterr()
    assert captured.out == loaded.start_chat().ask("Why?", max_length=12) + "\n"
    assert "neo: missing.png" in captured.err
    assert "there is no command /dance" in captured.err
    assert "/image PATH" in captured.err


def test_a_conversation_at_the_keyboard(monkeypatch: pytest.MonkeyPatch, model: list[str], loaded: Any, capsys: Any):
    typed = iter(["", "Why?", "/dance"])

    def read(prompt: str) -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", read)
    monkeypatch.setattr(sys, "stdin", type("Keyboard", (), {"isatty": lambda self: True})())
    assert main(["chat", *model, *SHORT]) == 0
    captured = capsys.readouterr()
    assert captured.out == loaded.start_chat().ask("Why?", max_length=12) + "\n"
    assert captured.err.startswith("Ask ")


def test_a_first_picture_that_is_missing(refuse: Callable, model: list[str]):
    assert "missing.png" in refuse("chat", "missing.png", *model)


# neo info


def test_info_of_a_preset(run: Callable):
    text = run("info", "--preset", "2b")
    for part in (
        "patch embedding",
        "pre-Buffer, 12 layers",
        "language model, 28 layers",
        "embedding",
        "240 KiB",
    ):
        assert part in text
    facts = json.loads(run("info", "--preset", "2b", "--json"))
    assert facts["cache_bytes_per_token"] == 240 * 1024
    assert facts["parameters"]["total"] == 2_585_453_568
    assert "9b" in run("info", "--preset", "9b")


def test_info_of_a_checkpoint(run: Callable, tiny_checkpoint: Path, tmp_path: Path, loaded: Any):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    total = sum(parameter.numel() for parameter in loaded.model.parameters())
    facts = json.loads(run("info", folder, "--json"))
    assert facts["parameters"]["total"] == total
    assert facts["image_pixels"] == [4096, 65536]
    assert facts["dtype"] == "float32"
    assert "card" not in facts
    (folder / "README.md").write_text(
        "# A\n\n## What it can and cannot do\n\nIt says *nonsense*.\n\n### More\n\nYes.\n\n## B\n\nno\n"
    )
    text = run("info", folder)
    assert f"{total:,}" in text
    assert "float32" in text
    assert text.endswith("What it can and cannot do\n\nIt says *nonsense*.\n\n### More\n\nYes.\n")


def test_info_needs_no_weights(run: Callable, tiny_checkpoint: Path, tmp_path: Path):
    shutil.copy(tiny_checkpoint / "config.json", tmp_path)
    assert "parameters" in run("info", tmp_path)


# neo init


@pytest.fixture
def llm(tmp_path: Path) -> Path:
    """A Qwen3 of two layers; its tokenizer lacks the picture tokens, its embedding has no room for them."""
    tokenizer = train_tokenizer(TEXTS, 400)
    folder = tmp_path / "llm"
    tokenizer.save_pretrained(folder)
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] == "<|endoftext|>"]
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings = {
        key: value for key, value in settings.items() if key not in ("extra_special_tokens", "added_tokens_decoder")
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": "<|endoftext|>"}))
    rows = len(content["model"]["vocab"]) + 1
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 16}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False}
    torch.manual_seed(0)
    Qwen3ForCausalLM(Qwen3Config(vocab_size=rows, **sizes, **heads)).save_pretrained(folder)
    return folder


def test_init_grows_a_model_that_can_be_asked(
    run: Callable, refuse: Callable, llm: Path, tmp_path: Path, picture: Path
):
    output = tmp_path / "grown"
    words = ["init", "--llm", llm, "--pre-buffer-layers", 1, "--output", output, "--seed", 3]
    assert run(*words) == f"{output}\n"
    assert run("ask", picture, QUESTION, "--model", output, *SHORT)
    grown = neo.load_model(str(output))
    assert grown.model.config.text_config.num_hidden_layers == 3
    assert len(grown.processor.tokenizer) == grown.model.config.text_config.vocab_size
    assert grown.model.config.image_token_id == grown.processor.ids.image
    old = load_file(llm / "model.safetensors")["lm_head.weight"]
    head = load_file(output / "model.safetensors")["language_model.lm_head.weight"]
    assert torch.equal(head[: len(old)], old)
    torch.testing.assert_close(head[len(old) :], old.mean(0).expand(len(head) - len(old), -1))
    assert "there is something here already" in refuse(*words)
    words[words.index(output)] = tmp_path / "again"
    run(*words)
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert all(torch.equal(tensor, again[name]) for name, tensor in load_file(output / "model.safetensors").items())
    words[words.index(tmp_path / "again")] = tmp_path / "half"
    run(*words, "--dtype", "bf16")
    assert neo.load_model(str(tmp_path / "half")).model.dtype == torch.bfloat16


def test_init_without_tokenizer(run: Callable, refuse: Callable, llm: Path, tmp_path: Path):
    for file in llm.glob("tokenizer*"):
        file.unlink()
    run("init", "--llm", llm, "--pre-buffer-layers", 0, "--output", tmp_path / "grown")
    assert "tokenizer" in refuse("ask", "x", "--model", tmp_path / "grown")


def test_init_of_what_is_no_language_model(refuse: Callable, tmp_path: Path, llm: Path):
    more = ["--pre-buffer-layers", 1, "--output", tmp_path / "grown"]
    assert "missing" in refuse("init", "--llm", tmp_path / "missing", *more)
    assert "dtype='fp8'" in refuse("init", "--llm", llm, *more, "--dtype", "fp8")
    more[1] = -1
    assert "pre_buffer_layers=-1" in refuse("init", "--llm", llm, *more)
