"""Uploads: what is made on the CPU, on the device that reads it."""

from __future__ import annotations

import comfy.cli_args
import comfy.model_management
import torch
from torch import Tensor


def uploaded(values: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """`values` on `device` in `dtype`. To a CUDA device from pinned memory, so that nobody waits for what it was given to do before.

    The dtype changes on the CPU, as in torch's own copies between devices, so the bits are the same either way. torch keeps the pinned memory until
    the copy is done.
    """
    if pinnable(values, device):
        try:
            return values.to(dtype).pin_memory().to(device, non_blocking=True)
        except RuntimeError:  # no memory that can be pinned is left, or the driver gives none
            pass
    return values.to(device=device, dtype=dtype)


def pinnable(values: Tensor, device: torch.device) -> bool:
    """Whether the host allows such a copy: its switches for deterministic runs and against pinned memory hold here, too."""
    return (
        device.type == "cuda"
        and values.device.type == "cpu"
        and not comfy.cli_args.args.disable_pinned_memory
        and bool(comfy.model_management.device_supports_non_blocking(device))
    )
