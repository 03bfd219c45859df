"""What the device that trains can do, and what a run takes of it."""

import re
import sys

import torch

PEAK_TFLOPS = {
    "B200": 2250,
    "GH200": 989,
    "H200": 989,
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "H800": 989,
    "A100": 312,
    "A800": 312,
    "L40S": 362,
    "L40": 181,
    "L4": 121,
    "A40": 149.7,
    "A10": 125,
    "RTX A6000": 154.8,
    "RTX 5090": 209.5,
    "RTX 4090": 165.2,
    "RTX 3090": 71,
    "MI300X": 1307,
}
"""bfloat16 matrix products summed in float32, without sparsity, as the makers' data sheets give them; special forms of
a name before the name."""
LESS = {"Laptop", "MIG", "D"}
"""Words in the name of a device that is less than the one it is named after."""


def peak_flops(device: torch.device) -> float | None:
    """Operations a second that a device can do at most in bfloat16; None where no data sheet is known here."""
    if device.type != "cuda":
        return None
    return peak_of(torch.cuda.get_device_name(device))


def peak_of(name: str) -> float | None:
    """`peak_flops` of a device by the name its driver gives it."""
    words = set(re.split(r"[\s-]+", name))
    known = (peak for key, peak in PEAK_TFLOPS.items() if words.issuperset(key.split()))
    return None if words & LESS or (peak := next(known, None)) is None else peak * 1e12


def peak_memory(device: torch.device) -> int:
    """Bytes that this process has held at most: tensors on a GPU, or on CPU all of its resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()  # there is no record of its peak
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
