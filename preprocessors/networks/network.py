"""A network where the host put it, as a preprocessor's function sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Network:
    """A module that computes on `device` in `dtype`; its weights may lie elsewhere, and come when they are needed."""

    module: nn.Module
    device: torch.device
    dtype: torch.dtype

    def __call__(self, picture_bchw: Tensor) -> Any:
        """What the module makes of pictures, without gradients."""
        with torch.no_grad():
            return self.module(picture_bchw.to(self.device, self.dtype))
