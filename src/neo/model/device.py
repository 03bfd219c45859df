"""Where a network computes, and with what numbers."""

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
