"""Which arithmetic the hardware has."""

import torch


def has_bfloat16(device):
    """Whether this torch.device multiplies bfloat16 itself. A CPU that does not takes fifty times as long as for float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
