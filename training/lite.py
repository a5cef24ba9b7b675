"""ControlNet-lite: one convolution for each block in place of the copy (arXiv 2302.05543, 4.2, the ablation)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints.encoder import Down, EncoderHyperparameters, hint_convolutions
from .hint_network import embed


class LiteControl(nn.Module):
    """Reads latent and hint like a copy, and neither text nor time. Its layers outside of the blocks have the names of cldm."""

    gradient_checkpointing = False

    def __init__(self, net: EncoderHyperparameters) -> None:
        super().__init__()
        hint: list[nn.Module] = []
        for index, (in_channels, out_channels) in enumerate(hint_convolutions(net)):
            hint += [nn.Conv2d(in_channels, out_channels, 3, 2 if index in (2, 4, 6) else 1, padding=1), nn.SiLU()]
        self.input_hint_block = nn.Sequential(*hint[:-1])
        channels = net.model_channels
        blocks = [nn.Conv2d(net.in_channels, channels, 3, padding=1)]
        for block in net.blocks():
            out, stride = (channels, 2) if isinstance(block, Down) else (block.out_channels, 1)
            blocks.append(nn.Conv2d(channels, out, 3, stride, padding=1))
            channels = out
        self.input_blocks = nn.ModuleList(blocks)
        self.middle_block = nn.Conv2d(channels, channels, 3, padding=1)
        self.zero_convs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(block.out_channels, block.out_channels, 1)) for block in blocks
        )
        self.middle_block_out = nn.Sequential(nn.Conv2d(channels, channels, 1))

    def forward(
        self, x: Tensor, hint: Tensor, timesteps: Tensor, context: Tensor, y: Tensor | None = None, **_: Any
    ) -> dict[str, list[Tensor]]:
        """Residuals as `TrainableCopy` gives them."""
        guided = embed(self.input_hint_block, hint.to(torch.float32))
        h = self.input_blocks[0](x.to(torch.float32)) + guided
        output = [self.zero_convs[0](h)]
        for block, zero_convolution in zip(self.input_blocks[1:], self.zero_convs[1:], strict=True):
            h = block(nn.functional.silu(h))
            output.append(zero_convolution(h))
        return {"output": output, "middle": [self.middle_block_out(self.middle_block(nn.functional.silu(h)))]}
