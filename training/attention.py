"""Attention that can be trained through, whatever the host runs its own with (host side)."""

from __future__ import annotations

from typing import Any

import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch import Tensor


def options() -> dict[str, Any]:
    """A fresh `transformer_options` for the host's blocks, which write into it: torch's own attention where a gradient is recorded.

    The host chooses for inference: SageAttention has no gradient, others cut the keys by how much memory happens to be free, so that sums
    differ from run to run, and keep whole attention maps for the backward pass. Without a gradient the host's choice holds, as in its sampler.
    """
    return {"optimized_attention_override": _attend} if torch.is_grad_enabled() else {}


def _attend(_chosen: Any, *arguments: Any, **given: Any) -> Tensor:
    out: Tensor = attention_pytorch(*arguments, **given)
    return out
