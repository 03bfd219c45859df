"""Where a network computes, and with what numbers."""

import os
import resource
import sys
from pathlib import Path

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Short names of the dtypes that weights come in."""
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
    """Bytes that could be taken: of a GPU's free memory, or of what the system can give without swapping."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    table = Path("/proc/meminfo")
    if table.is_file():  # Linux; elsewhere the system does not say what it could free
        available = next(line for line in table.read_text().splitlines() if line.startswith("MemAvailable"))
        return int(available.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


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
