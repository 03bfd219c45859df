"""Where a network computes, and with what numbers."""

import os
from pathlib import Path

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Short names of the dtypes that weights come in."""


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


def free_memory(device: torch.device) -> int:
    """Bytes that could be taken: of a GPU's free memory, or of what the system can give without swapping."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    table = Path("/proc/meminfo")
    if table.is_file():  # Linux; elsewhere the system does not say what it could free
        available = next(line for line in table.read_text().splitlines() if line.startswith("MemAvailable"))
        return int(available.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
