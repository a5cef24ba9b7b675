"""The hint as one more channel of the latent, as in SD2's depth-to-image: the whole UNet is trained, nothing is locked."""

from __future__ import annotations

from typing import Any

import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor, nn

from ...training.layers import TrainingOperations
from ..unet import UNET_CONFIG


class ConcatenatedUNet(nn.Module):
    """A copy of the demo world's UNet that reads five channels. The weights of the fifth begin at zero, so it begins as the UNet does."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet: Any = UNetModel(
            **(UNET_CONFIG | {"in_channels": 5}), dtype=torch.float32, operations=TrainingOperations
        )
        state = dict(unet.state_dict())
        first = "input_blocks.0.0.weight"
        state[first] = nn.functional.pad(state[first], (0, 0, 0, 0, 0, 1))
        self.unet.load_state_dict(state)

    def forward(self, x: Tensor, hint: Tensor, timesteps: Tensor, context: Tensor, y: Tensor | None = None) -> Tensor:
        """The prediction (B, 4, h, w). Of the hint (B, C, 8h, 8w) in 0..1 it sees the mean of each cell, from -1 to 1."""
        seen = nn.functional.adaptive_avg_pool2d(hint.mean(dim=1, keepdim=True), (x.shape[2], x.shape[3])) * 2 - 1
        predicted: Tensor = self.unet(
            torch.cat([x, seen.to(x.dtype)], dim=1), timesteps, context, transformer_options={}
        )
        return predicted


def alone(
    unet: Any, control: nn.Module, x: Tensor, hint: Tensor, timesteps: Tensor, context: Tensor,
    y: Tensor | None = None, *, checkpointing: bool = False,
) -> Tensor:  # fmt: skip
    """For `train`: what is trained predicts by itself, without the UNet that it was copied from."""
    predicted: Tensor = control(x, hint, timesteps, context, y)
    return predicted
