"""Choose a device, and tell which arithmetic it has."""

import os
import platform
import re
from functools import cache
from pathlib import Path
from typing import Any

import torch

from utils.errors import UserError


@cache
def has_bfloat16(device: torch.device) -> bool:
    """Tell whether a device multiplies bfloat16 natively, as far as torch knows.

    A CPU that does not is many times slower in bfloat16 than in float32.
    """
    if device.type == "cuda":
        return bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= (8, 0)
    return getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()  # not in every torch


def choose_device(device: str | torch.device) -> torch.device:
    """Return the device that a name stands for; 'auto' is the first GPU, or else the CPU.

    Raises UserError if there is no such device.
    """
    name = str(device)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    known = re.fullmatch(r"cpu|cuda(?::(\d+))?", name)
    if not known:
        raise UserError(f"--device {name!r} is none of auto, cpu, cuda, cuda:0, cuda:1, …")
    count = torch.cuda.device_count()
    if name != "cpu" and int(known[1] or 0) >= count:
        raise UserError(f"--device {name}: torch sees {count} CUDA devices; use --device auto")
    return torch.device(name)


def describe_machine(device: torch.device | str) -> dict[str, Any]:
    """Return the processor, its cores, the threads that torch uses, and the device if a GPU."""
    is_gpu = torch.device(device).type == "cuda"
    return {
        "processor": _processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if is_gpu else None,
    }


def _processor_name():
    """Return the processor's name, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    for line in lines:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()
