"""A run that is stopped, in whatever way, and started again ends bit by bit as one that never was."""

import json
import os
import signal
from pathlib import Path

import pytest

from neo.processing.processor import NeoProcessor
from neo.training import TrainConfig, checkpoint, start, train
from neo.training.checkpoint import oldest_first, read_state
from neo.training.learner import Learner

from .conftest import tiny_recipe
from .runs import apart, files, kill_in, killed_in_a_job, on_ranks, terminated, train_and_die, train_quietly
from .test_distributed import losses
from .test_trainer import assert_same

STEPS = ["--steps=5", "--save_every=2", "--keep=9"]


@pytest.fixture(scope="module")
def whole(pt: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs never stopped, by precision."""
    folder = tmp_path_factory.mktemp("whole")
    return {name: train(recipe(pt, folder / name, f"--precision={name}")) for name in ("fp32", "bf16")}


def recipe(pt: Path, folder: Path, *words: str) -> TrainConfig:
    return tiny_recipe("mt", folder, f"--model.path={pt}", *STEPS, *words)


@pytest.mark.parametrize(
    ("precision", "workers", "step"), [("fp32", 0, 5), ("fp32", 2, 4), ("bf16", 2, 5), ("bf16", 0, 1)]
)
def test_killed_in_any_step(
    pt: Path, whole: dict[str, Path], tmp_path: Path, precision: str, workers: int, step: int
) -> None:
    config = recipe(pt, tmp_path, f"--precision={precision}", f"--data.workers={workers}")
    assert apart(train_and_die, config, step) == -signal.SIGKILL
    assert not (tmp_path / "model.safetensors").exists()
    train(config)
    assert_same(whole[precision], tmp_path)
    assert losses(tmp_path) == losses(whole[precision])


def test_killed_while_a_checkpoint_is_written(pt: Path, whole: dict[str, Path], tmp_path: Path) -> None:
    config = recipe(pt, tmp_path, "--precision=fp32")
    assert apart(die_while_saving, config, "step-000004") == -signal.SIGKILL
    assert files(tmp_path / "checkpoints") == {"step-000002", ".step-000004.tmp"}
    train(config)
    assert_same(whole["fp32"], tmp_path)
    assert files(tmp_path / "checkpoints") == {"step-000002", "step-000004", "step-000005"}


def die_while_saving(config: TrainConfig, name: str) -> None:
    normal = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if target.name == name:
            os.kill(os.getpid(), signal.SIGKILL)
        return normal(self, target)

    Path.rename = rename  # type: ignore[method-assign, assignment]
    train(config)


def test_killed_while_an_old_checkpoint_is_deleted(pt: Path, whole: dict[str, Path], tmp_path: Path) -> None:
    config = recipe(pt, tmp_path, "--precision=fp32", "--keep=1", "--keep_best=false")
    assert apart(die_while_deleting, config) == -signal.SIGKILL
    assert files(tmp_path / "checkpoints") == {".step-000002.tmp", "step-000004"}
    assert_same(whole["fp32"], train(config))
    assert files(tmp_path / "checkpoints") == {"step-000005"}


def die_while_deleting(config: TrainConfig) -> None:
    def delete_some(folder: Path) -> None:
        next(folder.iterdir()).unlink()
        os.kill(os.getpid(), signal.SIGKILL)

    checkpoint.shutil.rmtree = delete_some  # type: ignore[assignment]
    train(config)


def test_killed_at_the_end_of_an_epoch(pt: Path, tmp_path: Path) -> None:
    """Records that fill a row each: four of them are an epoch, and two steps."""
    made = [[{"role": "user", "content": "a"}, {"role": "assistant", "content": f"{k} " * 20}] for k in range(4)]
    lengths = {len(NeoProcessor.from_pretrained(pt).encode(messages).input_ids) for messages in made}
    records = tmp_path / "records.json"
    records.write_text(json.dumps([{"messages": messages} for messages in made]))
    words = [f"--data.sources={{mine: {{kind: json, path: {records}}}}}", f"--data.max_seq_length={max(lengths)}"]
    words += ["--data.lookahead_rows=2"]
    assert len(lengths) == 1
    plain = train(recipe(pt, tmp_path / "plain", *words))
    place = read_state(plain / "checkpoints" / "step-000002")["data"]
    assert (place["block"], place["row"]) == (4, 0)
    config = recipe(pt, tmp_path / "killed", *words)
    assert apart(train_and_die, config, 4) == -signal.SIGKILL
    assert_same(plain, train(config))


def test_killed_between_stages(llm: Path, tmp_path: Path) -> None:
    words = [f"--model.from_llm={llm}", "--model.pre_buffer_layers=1", "--steps=2"]

    def stages(folder: Path) -> list[TrainConfig]:
        first = tiny_recipe("pt", folder / "pt", *words)
        return [first, tiny_recipe("mt", folder / "mt", f"--model.path={folder / 'pt'}", "--steps=2")]

    for config in stages(tmp_path / "plain"):
        train(config)
    for name in ("config.json", "model.safetensors"):  # as the finished model of the first stage is put in its place
        killed = stages(tmp_path / name)
        assert apart(die_while_finishing, killed, name) == -signal.SIGKILL
        for config in killed:
            train(config)
        for stage in ("pt", "mt"):
            assert_same(tmp_path / "plain" / stage, tmp_path / name / stage)


def die_while_finishing(configs: list[TrainConfig], name: str) -> None:
    normal = os.replace

    def replace(source: Path, target: Path) -> None:
        if Path(target).name == name:
            os.kill(os.getpid(), signal.SIGKILL)
        normal(source, target)

    os.replace = replace  # type: ignore[assignment]
    for config in configs:
        train(config)


def test_sigterm_saves_and_ends_well(pt: Path, whole: dict[str, Path], tmp_path: Path) -> None:
    config = recipe(pt, tmp_path, "--precision=fp32")
    assert apart(train_and_die, config, 3, signal.SIGTERM) == 0
    assert [path.name for path in oldest_first(tmp_path)] == ["step-000002", "step-000003"]
    assert not (tmp_path / "model.safetensors").exists()
    assert_same(whole["fp32"], train(config))
    for step in (2, 4, 5):  # what the best is chosen by
        name = f"checkpoints/step-{step:06d}"
        assert read_state(tmp_path / name)["score"] == read_state(whole["fp32"] / name)["score"] is not None
    assert read_state(tmp_path / "checkpoints" / "step-000003")["score"] is None  # of one step alone


def test_a_killed_run_leaves_no_workers(pt: Path, tmp_path: Path) -> None:
    config = tiny_recipe("mt", tmp_path, f"--model.path={pt}", "--steps=100000", "--data.workers=2")
    assert killed_in_a_job(config, step=2) == []


def test_sigterm_to_a_job_spares_its_workers_until_it_has_saved(pt: Path, tmp_path: Path) -> None:
    config = tiny_recipe("mt", tmp_path, f"--model.path={pt}", "--steps=100000", "--data.workers=2")
    assert terminated(config) == 0
    (saved,) = oldest_first(tmp_path)
    assert read_state(saved)["step"] == len(losses(tmp_path))


def test_sigterm_to_one_of_two_ranks_stops_both_at_one_step(pt: Path, tmp_path: Path) -> None:
    config = recipe(pt, tmp_path, "--distributed.strategy=fsdp")
    assert on_ranks(2, stop_second_rank, config) == [0, 0]
    assert [path.name for path in oldest_first(tmp_path)] == ["step-000001"]


def stop_second_rank(config: TrainConfig) -> None:
    if os.environ["RANK"] == "1":
        kill_in(1, signal.SIGTERM)
    train(config)


def test_ctrl_c_saves_and_is_said_in_a_line(
    pt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background are begun with it ignored
    monkeypatch.setattr(Learner, "step", Learner.step)  # put back what the next line replaces
    kill_in(1, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(recipe(pt, tmp_path))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert caplog.messages[-1] == "SIGINT: stopped at step 1, which is saved; the same command goes on from it"
    assert [path.name for path in oldest_first(tmp_path)] == ["step-000001"]


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_another_number_of_ranks(pt: Path, whole: dict[str, Path], tmp_path: Path, before: int, after: int) -> None:
    """Same samples in the same order, hence the same losses but for rounding."""
    config = recipe(pt, tmp_path, "--precision=fp32", "--distributed.strategy=fsdp")
    assert set(on_ranks(before, train_and_die, config, 4, signal.SIGTERM)) == {0}
    assert set(on_ranks(after, train_quietly, config)) == {0}
    assert losses(tmp_path) == pytest.approx(losses(whole["fp32"]), rel=1e-5)
    ends = [read_state(folder / "checkpoints" / "step-000005") for folder in (tmp_path, whole["fp32"])]
    assert ends[0]["data"] == ends[1]["data"]


def test_a_checkpoint_is_a_model_to_start_from(pt: Path, whole: dict[str, Path], tmp_path: Path) -> None:
    saved = oldest_first(whole["fp32"])[-1]
    model, _ = start.load(saved)
    model.save_pretrained(tmp_path)
    assert_same(whole["fp32"], tmp_path)
