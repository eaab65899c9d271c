"""Which arithmetic the hardware has."""

from functools import cache

import torch


@cache
def has_bfloat16(device):
    """Whether this torch.device multiplies bfloat16 itself, as far as torch tells. A CPU that does not is many times
    slower in it than in float32."""
    if device.type == "cuda":
        return bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= (8, 0)
    return getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
