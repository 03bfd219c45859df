"""The launch files: they are well-formed, their numbers agree, and what they start is a training that runs."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_data
import yaml
from torch.distributed.run import get_args_parser

from neo.training import load_recipe
from neo.training.metrics import read_metrics

ROOT = Path(__file__).parents[1]
SBATCH = ROOT / "deploy" / "slurm" / "train.sbatch"
STUBS = {
    "scontrol": '#!/bin/sh\n[ "$1" = show ] && echo localhost || echo "$@" >> asked\n',
    "srun": '#!/bin/sh\nshift\nexec "$@"\n',
}
"""What SLURM would do on one machine: tell its name, run a command on it, note what else is asked."""


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """The environment of a job of one machine with two GPUs, SLURM's programs among it."""
    programs = tmp_path / "bin"
    programs.mkdir()
    torchrun = f'#!/bin/sh\nexec "{sys.executable}" -m torch.distributed.run "$@"\n'
    for name, text in {**STUBS, "torchrun": torchrun}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "here",
        "SLURM_NNODES": "1",
        "SLURM_GPUS_ON_NODE": "2",
    }


def sbatch_options() -> dict[str, str]:
    lines = [line for line in SBATCH.read_text().splitlines() if line.startswith("#SBATCH --")]
    words = [line.removeprefix("#SBATCH --").partition("=") for line in lines]
    return {name: value for name, _, value in words}


def kubernetes() -> dict[str, Any]:
    """The objects of the Kubernetes file by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all((ROOT / "deploy/kubernetes/train.yaml").read_text())}


def test_slurm_starts_torchrun_on_every_machine(tmp_path: Path, slurm: dict[str, str]) -> None:
    said = tmp_path / "bin" / "torchrun"
    said.write_text(f'#!{sys.executable}\nimport json, sys\njson.dump(sys.argv[1:], open("words", "w"))\nsys.exit(3)\n')
    done = subprocess.run(["bash", SBATCH, "a.yaml", "--steps", "7"], cwd=tmp_path, env=slurm, check=False)
    options = get_args_parser().parse_args(json.loads((tmp_path / "words").read_text()))
    assert (options.nnodes, options.nproc_per_node) == ("1", "2")
    assert (options.rdzv_backend, options.rdzv_endpoint) == ("c10d", f"localhost:{29500 + os.getpid() % 1000}")
    assert (options.module, options.training_script) == (True, "neo")
    assert options.training_script_args == ["train", "a.yaml", "--steps", "7"]
    assert done.returncode == 3
    assert not (tmp_path / "asked").exists()  # it failed at once, so it is not put back into the queue


def test_slurm_leaves_time_to_save() -> None:
    options = sbatch_options()
    torchrun = shlex.split(SBATCH.read_text().replace("\\\n", ""), comments=True)
    timeout = next(int(word.partition("=")[2]) for word in torchrun if word.startswith("--shutdown-timeout"))
    assert options["signal"] == "TERM@600"
    assert timeout < 600
    assert options["ntasks-per-node"] == "1"  # torchrun starts the processes of a machine
    assert "requeue" in options


def test_kubernetes_names_and_numbers_agree() -> None:
    job, service = kubernetes()["Job"], kubernetes()["Service"]
    pod = job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    options = get_args_parser().parse_args(container["args"])
    assert container["command"] == ["torchrun"]
    assert int(options.nnodes) == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert int(options.nproc_per_node) == container["resources"]["limits"]["nvidia.com/gpu"]
    name = service["metadata"]["name"]
    assert pod["subdomain"] == name
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert options.rdzv_endpoint == f"{job['metadata']['name']}-0.{name}:{service['spec']['ports'][0]['port']}"
    assert options.shutdown_timeout < pod["terminationGracePeriodSeconds"]
    assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in pod["volumes"]}
    assert options.module
    assert options.training_script_args[0] == "train"
    assert (ROOT / options.training_script_args[1]).is_file()


@pytest.mark.slow
def test_a_recipe_through_slurm_in_two_processes(tmp_path: Path, slurm: dict[str, str]) -> None:
    recipe = ROOT / "recipes" / "neo_2b_pt.yaml"
    tiny_data.make_language_model(tmp_path / "checkpoints" / "Qwen3-1.7B-Base", tied=True)
    tiny_data.make_sources(tmp_path, load_recipe(recipe).data.sources.values())
    words = [*tiny_data.SMALL, "--data.index=null", "--model.pre_buffer_layers=1", "--model.vision.hidden_size=16"]
    command = ["bash", str(SBATCH), str(recipe), *words]
    done = subprocess.run(command, cwd=tmp_path, env=slurm, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line["step"] for line in read_metrics(tmp_path / "runs/neo-2b/pt")] == [1, 2]
