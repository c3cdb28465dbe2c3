"""Which numbers training computes with: bfloat16 where convolutions in it are fast."""

from __future__ import annotations

import torch


def has_bfloat16(device: torch.device) -> bool:
    """Tell whether convolutions in bfloat16 are fast: on GPUs, and on processors with AVX-512 (a tenth without).

    Two or three times as fast as in float32 where the processor has AMX.
    """
    return device.type == "cuda" or torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def autocast(device: torch.device) -> torch.autocast:
    """Return the context in which networks compute; what they return may be bfloat16, their weights stay float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device))
