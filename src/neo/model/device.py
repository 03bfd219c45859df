"""Where a network computes, and with what numbers."""

import os
import resource
import sys
from pathlib import Path

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Short names of the dtypes that weights come in."""
_MACHINE = Path("/proc/meminfo")
_GROUPS = Path("/proc/self/cgroup")
_GROUP_ROOT = Path("/sys/fs/cgroup")
_STATUS = Path("/proc/self/status")
_PEAK_RESET = Path("/proc/self/clear_refs")


def choose_device(device: str | torch.device) -> torch.device:
    """The device of a name; "auto" is the best there is: cuda before mps before cpu.

    Raises:
        ValueError: there is no such device on this machine.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(kind for kind in there if there[kind]))
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device={device!r} must be auto, cpu, cuda, cuda:N or mps") from error
    if not there.get(chosen.type, True) or (chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count()):
        found = ", ".join(kind for kind in there if there[kind])
        raise ValueError(f"device={device!r} is not on this machine, which has {found}")
    return chosen


def compute_with(threads: int) -> None:
    """Let this thread compute with so many on CPU from now on, whatever others set later."""
    torch.get_num_threads()  # a thread's first look takes the number over that was set last, by any: not afterwards
    torch.set_num_threads(threads)


def free_memory(device: torch.device) -> int:
    """Bytes that could be taken: of a GPU's free memory, or of what the system can give without swapping.

    In a container that is what its limit leaves, where that is less.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if _MACHINE.is_file():  # Linux; elsewhere the system does not say what it could free
        return max(0, min([_numbers(_MACHINE)["MemAvailable:"] * 1024, *_left_by_groups()]))
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _left_by_groups() -> list[int]:
    """Bytes that the limits of the control groups leave in which this process runs, which is how containers are bound.

    Of version 2, and of version 1 where the memory has a hierarchy of its own. Cached files are free.
    """
    left = []
    for line in _GROUPS.read_text().splitlines() if _GROUPS.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, names = _GROUP_ROOT, ("memory.max", "memory.current", "inactive_file", "active_file")
        elif "memory" in controllers.split(","):
            root = _GROUP_ROOT / "memory"
            names = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "total_active_file"
        else:
            continue
        limit, usage, *cached = names
        group = root / path.lstrip("/")  # which a container may not see: its own is the root then
        for folder in (group, *group.parents):
            if not folder.is_relative_to(root) or not (folder / limit).is_file():
                continue
            if (most := (folder / limit).read_text().strip()) != "max":
                table = _numbers(folder / "memory.stat")
                left.append(int(most) - int((folder / usage).read_text()) + sum(table.get(name, 0) for name in cached))
    return left


def _numbers(table: Path) -> dict[str, int]:
    """Of a file of the system whose lines are a word, a number, and perhaps a unit."""
    lines = (line.split() for line in table.read_text().splitlines())
    return {words[0]: int(words[1]) for words in lines}


def reset_peak_memory(device: torch.device) -> None:
    """Begin to watch what `peak_memory` tells."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif os.access(_PEAK_RESET, os.W_OK):
        _PEAK_RESET.write_text("5")


def peak_memory(device: torch.device) -> int:
    """Most bytes taken of a GPU, or by the whole process on CPU, since `reset_peak_memory`.

    Where the system cannot set it back, since the process began.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if _STATUS.is_file():
        peak = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
