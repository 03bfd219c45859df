import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from torch import nn
from torch.distributed.checkpoint.filesystem import FileSystem

from neo.training.checkpoint import Checkpoints, load_tensors, oldest_first, read_state, save_finished, tensors_of
from neo.training.distributed import Ranks

ALONE = Ranks(torch.device("cpu"))


def stepped(seed: int = 0) -> tuple[dict[str, nn.Parameter], torch.optim.AdamW]:
    """A small model's parameters, one of them frozen, and an optimiser that has done a step."""
    torch.manual_seed(seed)
    named = {name: nn.Parameter(torch.randn(3, 4)) for name in ("a.weight", "a.bias", "b.weight")}
    named["b.weight"].requires_grad_(False)
    optimizer = torch.optim.AdamW([{"params": [named["a.bias"]], "weight_decay": 0.0}, {"params": [named["a.weight"]]}])
    for parameter in (named["a.weight"], named["a.bias"]):
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return named, optimizer


def save(checkpoints: Checkpoints, step: int, score: float | None = None) -> None:
    named, optimizer = stepped()
    state = {"step": step, "score": score}
    checkpoints.save(step, tensors_of(named, [optimizer]), state, lambda folder: None)
    checkpoints.wait()


def names(output_dir: Path) -> list[str]:
    return [folder.name for folder in oldest_first(output_dir)]


def test_weights_and_optimiser_come_back(tmp_path: Path) -> None:
    save(Checkpoints(tmp_path, 2, True, ALONE), 7)
    (folder,) = oldest_first(tmp_path)
    assert read_state(folder) == {"step": 7, "score": None}
    was, old = stepped()
    named, optimizer = stepped(seed=1)
    load_tensors(folder, named, [optimizer])
    assert all(torch.equal(named[name], was[name]) for name in was)
    for name in ("a.weight", "a.bias"):
        ours, theirs = optimizer.state[named[name]], old.state[was[name]]
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.01]


def test_what_is_saved_is_what_was_there_at_the_time(tmp_path: Path) -> None:
    named, optimizer = stepped()
    was = {name: parameter.detach().clone() for name, parameter in named.items()}
    checkpoints = Checkpoints(tmp_path, 2, True, ALONE)
    checkpoints.save(1, tensors_of(named, [optimizer]), {"score": None}, lambda folder: None)
    with torch.no_grad():
        for parameter in named.values():
            parameter.zero_()
    checkpoints.wait()
    load_tensors(oldest_first(tmp_path)[0], named)
    assert all(torch.equal(named[name], was[name]) for name in was)


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 2, True, ALONE)
    for step, score in enumerate((3.0, 1.0, 2.0, 2.5, None), start=1):
        save(checkpoints, step, score)
    assert names(tmp_path) == ["step-000002", "step-000004", "step-000005"]
    save(Checkpoints(tmp_path, 1, False, ALONE), 6, 4.0)
    assert names(tmp_path) == ["step-000006"]


def test_the_newest_is_that_of_most_steps(tmp_path: Path) -> None:
    for name in ("step-1000000", "step-999500"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert names(tmp_path) == ["step-999500", "step-1000000"]


def test_a_checkpoint_is_not_written_twice(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 2, True, ALONE)
    save(checkpoints, 1, 1.0)
    save(checkpoints, 1, 2.0)
    assert read_state(oldest_first(tmp_path)[0])["score"] == 1.0


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "checkpoints" / ".step-000009.tmp"
    left.mkdir(parents=True)
    Checkpoints(tmp_path, 2, True, ALONE)
    assert not left.exists()


def test_a_full_disk_is_said_and_the_checkpoint_before_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path, 1, True, ALONE)
    save(checkpoints, 1)

    def on_a_full_disk(self: FileSystem, path: Any, mode: str) -> Any:
        return Path("/dev/full").open(mode)

    with monkeypatch.context() as patched:
        patched.setattr(FileSystem, "create_stream", on_a_full_disk)
        patched.setattr(FileSystem, "mkdir", lambda self, path: None)
        with pytest.raises(
            ValueError, match=r"step-000002 cannot be written \(No space left on device\); .*step-000001 is whole"
        ):
            save(checkpoints, 2)
    assert os.listdir(tmp_path / "checkpoints") == ["step-000001"]
    named, optimizer = stepped()
    load_tensors(oldest_first(tmp_path)[0], named, [optimizer])
    save(checkpoints, 2)
    assert names(tmp_path) == ["step-000002"]


@pytest.mark.parametrize("full", [False, True])
def test_a_run_that_fails_lets_a_checkpoint_come_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, full: bool
) -> None:
    named, optimizer = stepped()
    failed = threading.Event()
    normal = FileSystem.create_stream

    def late(self: FileSystem, path: Any, mode: str) -> Any:
        failed.wait()
        return Path("/dev/full").open(mode) if full else normal(self, path, mode)

    monkeypatch.setattr(FileSystem, "create_stream", late)
    checkpoints = Checkpoints(tmp_path, 1, True, ALONE)
    checkpoints.save(1, tensors_of(named, [optimizer]), {"score": None}, lambda folder: None)
    threading.Timer(0.1, failed.set).start()
    checkpoints.close()
    assert os.listdir(tmp_path / "checkpoints") == ([] if full else ["step-000001"])
    assert ("step-000001 cannot be written (No space left on device)" in caplog.text) == full


def test_a_full_disk_at_the_description_or_the_end(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    named, optimizer = stepped()
    with pytest.raises(
        ValueError, match=r"step-000001 cannot be written \(No space left on device\); there is none before"
    ):
        Checkpoints(tmp_path, 1, True, ALONE).save(1, tensors_of(named, [optimizer]), {}, fill)
    (tmp_path / "model.safetensors").write_text("old")

    def save_weights(folder: Path) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    for save_model in (fill, save_weights):
        with pytest.raises(
            ValueError, match=r"the finished model cannot be written \(No space left on device\); make room"
        ):
            save_finished(tmp_path, save_model)
        assert (tmp_path / "model.safetensors").read_text() == "old"
        assert not (tmp_path / ".finished.tmp").exists()


def test_folders_that_are_no_checkpoints(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "step-000003"
    folder.mkdir(parents=True)
    with pytest.raises(ValueError, match=r"step-000003: no state.json here, so the run cannot go on"):
        read_state(folder)
    with pytest.raises(ValueError, match=r"step-000003: no whole checkpoint here \(No such file or directory\)"):
        load_tensors(folder, {})


def test_a_checkpoint_of_another_model(tmp_path: Path) -> None:
    save(Checkpoints(tmp_path, 2, True, ALONE), 1)
    (folder,) = oldest_first(tmp_path)
    with pytest.raises(ValueError, match=r"cannot be gone on from \(.*c\.weight"):
        load_tensors(folder, {"c.weight": nn.Parameter(torch.zeros(3, 4))})
    with pytest.raises(ValueError, match=r"cannot be gone on from"):
        load_tensors(folder, {"a.weight": nn.Parameter(torch.zeros(5, 4))})
