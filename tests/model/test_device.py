from pathlib import Path

import pytest
import torch

from neo.model import device as module
from neo.model.device import free_memory

CPU = torch.device("cpu")
V2 = ("memory.max", "memory.current", "inactive_file {}\nactive_file 1\n")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "cache 7\ntotal_inactive_file {}\ntotal_active_file 1\n")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system with 1000 KiB free, without control groups."""
    (tmp_path / "meminfo").write_text("MemTotal: 2000 kB\nMemAvailable: 1000 kB\nHugePages_Total: 0\n")
    monkeypatch.setattr(module, "_MACHINE", tmp_path / "meminfo")
    monkeypatch.setattr(module, "_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(module, "_GROUP_ROOT", tmp_path / "groups")
    return tmp_path


def limited(folder: Path, names: tuple[str, str, str], most: str, used: int, cached: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    limit, usage, stat = names
    (folder / limit).write_text(f"{most}\n")
    (folder / usage).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(stat.format(cached - 1))


def test_what_the_system_has_free(machine: Path) -> None:
    assert free_memory(CPU) == 1000 * 1024
    (machine / "cgroup").write_text("0::/\n")
    assert free_memory(CPU) == 1000 * 1024
    (machine / "meminfo").unlink()
    assert free_memory(CPU) > 2**20


@pytest.mark.parametrize(("line", "root", "names"), [("0::", "", V2), ("4:cpu,memory:", "memory", V1)])
def test_what_a_container_may_take(machine: Path, line: str, root: str, names: tuple[str, str, str]) -> None:
    (machine / "cgroup").write_text(f"9:name=systemd:/\n{line}/pod/one\n")
    group = machine / "groups" / root
    limited(group, names, "500000", 300000, 40000)  # all that a container sees of it
    assert free_memory(CPU) == 240000
    limited(group / "pod", names, "200000", 150000, 20000)
    assert free_memory(CPU) == 70000
    limited(group / "pod" / "one", names, "max" if names is V2 else str(2**63 - 4096), 150000, 20000)
    assert free_memory(CPU) == 70000
    limited(group / "pod", names, "200000", 250000, 20000)
    assert free_memory(CPU) == 0
