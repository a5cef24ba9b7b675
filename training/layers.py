"""Plain torch layers in place of the host's, which are made for inference only."""

from __future__ import annotations

from typing import Any

from torch import nn


class TrainingOperations:
    """Stands in for `comfy.ops` where weights are to be trained."""

    Linear = nn.Linear
    Conv2d = nn.Conv2d
    GroupNorm = nn.GroupNorm
    LayerNorm = nn.LayerNorm

    @staticmethod
    def conv_nd(dims: int, *arguments: Any, **options: Any) -> nn.Module:
        assert dims == 2, "a UNet of pictures"
        return nn.Conv2d(*arguments, **options)
