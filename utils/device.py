"""Which arithmetic the hardware has."""

import re
from functools import cache

import torch

from utils.errors import UserError


@cache
def has_bfloat16(device):
    """Whether this torch.device multiplies bfloat16 itself, as far as torch tells. A CPU that does not is many times
    slower in it than in float32."""
    if device.type == "cuda":
        return bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= (8, 0)
    return getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()


def choose_device(device):
    """The torch.device that 'auto' or a name stands for. Raises UserError where there is no such device."""
    device = str(device)
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    known = re.fullmatch(r"cpu|cuda(?::(\d+))?", device)
    if not known:
        raise UserError(f"--device {device!r} is none of auto, cpu, cuda, cuda:0, cuda:1, …")
    if device != "cpu" and int(known[1] or 0) >= torch.cuda.device_count():
        raise UserError(
            f"--device {device}: torch sees {torch.cuda.device_count()} CUDA devices; use --device auto"
        )
    return torch.device(device)
