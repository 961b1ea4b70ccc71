"""Half precision where the machine multiplies in it, and not where it only pretends to."""

import platform
from functools import lru_cache

import torch


def mixed_precision(device: torch.device | str, *, enabled: bool = True) -> torch.autocast:
    """bfloat16 autocast on GPUs, and on processors with instructions for it; elsewhere nothing.

    Without those instructions PyTorch emulates bfloat16: on a Zen 3 processor convolutions are then 6 times and matrix
    products 300 times slower than in float32.

    Args:
        device: Where the computation runs.
        enabled: False computes in float32 everywhere.

    >>> with mixed_precision("cpu", enabled=False):
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.float32
    """
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=enabled and (kind != "cpu" or multiplies_bf16()))


@lru_cache(maxsize=1)
def multiplies_bf16() -> bool:
    """Whether this machine's processor has instructions for products in bfloat16 (AVX-512 BF16, AMX, Arm's BF16)."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
