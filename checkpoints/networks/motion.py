"""AnimateDiff's motion module: attention from each cell to the same cell of the other frames (animatediff/models/motion_module.py)."""

from __future__ import annotations

import math
from typing import Any

import torch
from comfy.ldm.modules.attention import CrossAttention, FeedForward
from torch import Tensor
from torch.nn import Module, ModuleList

GROUPS = 32
EPSILON = 1e-6


class MotionModule(Module):
    """(chunks · frames, channels, h, w) -> the same shape, with what the frames of each chunk tell each other added."""

    def __init__(self, channels: int, heads: int, depth: int, operations: Any, **factory: Any) -> None:
        super().__init__()
        self.norm = operations.GroupNorm(GROUPS, channels, eps=EPSILON, **factory)
        self.proj_in = operations.Linear(channels, channels, **factory)
        self.transformer_blocks = ModuleList(
            [MotionBlock(channels, heads, operations, **factory) for _ in range(depth)]
        )
        self.proj_out = operations.Linear(channels, channels, **factory)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        rows, channels, height, width = x.shape
        # Each frame is normalised by itself, as in AnimateDiff; diffusers normalises all frames of a chunk together.
        h = self.norm(x).reshape(rows // frames, frames, channels, height * width)
        h = self.proj_in(h.permute(0, 3, 1, 2).reshape(-1, frames, channels))
        encoding = positions(frames, channels, h.device).to(h.dtype)
        for block in self.transformer_blocks:
            h = block(h, encoding)
        h = self.proj_out(h).reshape(rows // frames, height * width, frames, channels)
        summed: Tensor = x + h.permute(0, 2, 3, 1).reshape(x.shape)
        return summed


class MotionBlock(Module):
    """A transformer block over frames (cells, frames, channels)."""

    def __init__(self, channels: int, heads: int, operations: Any, **factory: Any) -> None:
        super().__init__()
        # Lists of one, for their names: AnimateDiff's class can have several.
        attention = CrossAttention(channels, heads=heads, dim_head=channels // heads, operations=operations, **factory)
        self.attention_blocks = ModuleList([attention])
        self.norms = ModuleList([operations.LayerNorm(channels, **factory)])
        self.ff = FeedForward(channels, glu=True, operations=operations, **factory)
        self.ff_norm = operations.LayerNorm(channels, **factory)

    def forward(self, x: Tensor, encoding: Tensor) -> Tensor:
        for norm, attention in zip(self.norms, self.attention_blocks, strict=True):
            x = x + attention(norm(x) + encoding)
        fed: Tensor = x + self.ff(self.ff_norm(x))
        return fed


def positions(frames: int, channels: int, device: torch.device) -> Tensor:
    """(frames, channels): sines and cosines of the place in the sequence, alternating, at wavelengths from 2π to 10000 · 2π."""
    place = torch.arange(frames, device=device).unsqueeze(1)
    rate = torch.exp(torch.arange(0, channels, 2, device=device) * (-math.log(10000.0) / channels))
    return torch.stack((torch.sin(place * rate), torch.cos(place * rate)), dim=-1).reshape(frames, channels)
