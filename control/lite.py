"""ControlNet-lite as a source of residuals: one convolution for each block (arXiv 2302.05543, 4.2, the ablation)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import silu

from ..residuals.blocks import Layout
from ..residuals.residuals import Residuals
from .network import EncoderNetwork, pool


@dataclass(frozen=True, eq=False)
class LiteNetwork(EncoderNetwork):
    """Its module is a `training.lite.LiteControl`, in full precision. It reads neither text nor time."""

    unrecordable: ClassVar[str] = ""

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = next(self.module.parameters()).dtype
        return dtype

    @property
    def control_types(self) -> int:
        return 0

    @property
    def model_channels(self) -> int:
        return int(self.module.input_blocks[0].out_channels)

    @property
    def latent_channels(self) -> int:
        return int(self.module.input_blocks[0].in_channels)

    @property
    def context_dim(self) -> int | None:
        return None

    @property
    def adm_channels(self) -> int | None:
        return None

    @property
    def layout(self) -> Layout:
        encoder: list[tuple[int, int]] = []
        level = 0
        for block in self.module.input_blocks:
            level += block.stride != (1, 1)
            encoder.append((level, int(block.out_channels)))
        return Layout(tuple(encoder), encoder[-1])

    def embed_hint(self, hint_bchw: Tensor) -> Tensor:
        """(N, hint channels, 8h, 8w) in 0..1 -> (N, model channels, h, w)."""
        embedding: Tensor = self.module.input_hint_block(hint_bchw.to(self.dtype))
        return embedding

    def residuals(
        self,
        x: Tensor,
        hint_embedding: Tensor,
        timesteps: Tensor,
        context: Tensor,
        y: Tensor | None = None,
        types: Sequence[tuple[int, ...]] = (),
    ) -> Residuals:
        """As `EncoderNetwork.residuals`; the arithmetic is that of `LiteControl.forward`."""
        net, dtype = self.module, self.dtype
        h = net.input_blocks[0](x.to(dtype)) + hint_embedding.to(dtype)
        output = [net.zero_convs[0](h)]
        for block, zero_convolution in zip(net.input_blocks[1:], net.zero_convs[1:], strict=True):
            h = block(silu(h))
            output.append(zero_convolution(h))
        middle = net.middle_block_out(net.middle_block(silu(h)))
        if self.pooling:
            output, middle = [pool(residual) for residual in output], pool(middle)
        return Residuals(output=tuple(output), middle=(middle,))
