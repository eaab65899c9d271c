"""Choose a device, and tell which arithmetic it has."""

import re
from functools import cache

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
