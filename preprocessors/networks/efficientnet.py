"""EfficientNet-B5 as an encoder. Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (ICML 2019), with
TensorFlow's padding, in the names of timm's tf_efficientnet_b5_ap. Its normalisations are folded into the convolutions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.functional import pad, silu

EPSILON = 1e-3
"""Of TensorFlow's normalisations."""
EXPANSION = 6


class Stage(NamedTuple):
    blocks: int
    kernel: int
    stride: int
    width: int


STAGES = (
    Stage(3, 3, 1, 24),
    Stage(5, 3, 2, 40),
    Stage(5, 5, 2, 64),
    Stage(7, 3, 2, 128),
    Stage(7, 5, 1, 176),
    Stage(9, 5, 2, 304),
    Stage(3, 3, 1, 512),
)
STEM = 48
HEAD = 2048
SEEN = (0, 1, 2, 4)
"""The stages whose results a decoder sees: the last ones of 1/2, 1/4, 1/8 and 1/16 of the picture's size."""


def around(x: Tensor, kernel: int, stride: int) -> Tensor:
    """With zeros for a convolution whose result is 1/stride of it, as TensorFlow pads: what is odd goes to the right and the bottom."""
    high, wide = (max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x.shape[2:])
    return pad(x, (wide // 2, wide - wide // 2, high // 2, high - high // 2))


class Excitation(nn.Module):
    """One weight for each channel, from the means of all."""

    def __init__(self, channels: int, width: int, operations: Any, **factory: Any):
        super().__init__()
        self.conv_reduce = operations.Conv2d(channels, width, 1, **factory)
        self.conv_expand = operations.Conv2d(width, channels, 1, **factory)

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = self.conv_expand(silu(self.conv_reduce(x.mean((2, 3), keepdim=True)))).sigmoid()
        return x * weight


class Block(nn.Module):
    """Channels made many (but in the first stage), looked at one by one, weighed, and made few; beside a shortcut where the size stays."""

    def __init__(
        self, channels: int, width: int, kernel: int, stride: int, expands: bool, operations: Any, **factory: Any
    ):
        super().__init__()
        inner = channels * EXPANSION if expands else channels
        self.adds, self.expands, self.kernel, self.stride = stride == 1 and channels == width, expands, kernel, stride
        if expands:
            self.conv_pw = operations.Conv2d(channels, inner, 1, **factory)
        self.conv_dw = operations.Conv2d(inner, inner, kernel, stride=stride, groups=inner, **factory)
        self.se = Excitation(inner, int(channels / 4 + 0.5), operations, **factory)
        last = operations.Conv2d(inner, width, 1, **factory)
        self.add_module("conv_pwl" if expands else "conv_pw", last)

    def forward(self, x: Tensor) -> Tensor:
        inner = silu(self.conv_pw(x)) if self.expands else x
        narrows = self.get_submodule("conv_pwl" if self.expands else "conv_pw")
        change: Tensor = narrows(self.se(silu(self.conv_dw(around(inner, self.kernel, self.stride)))))
        return x + change if self.adds else change


class EfficientNet(nn.Module):
    """Pictures (B, 3, H, W), normalised -> features of 1/2, 1/4, 1/8, 1/16 and 1/32 of their size, finest first."""

    def __init__(self, stem: int, widths: tuple[int, ...], head: int, operations: Any = nn, **factory: Any):
        super().__init__()
        self.conv_stem = operations.Conv2d(3, stem, 3, stride=2, **factory)
        self.blocks = nn.ModuleList()
        channels = stem
        for number, (stage, width) in enumerate(zip(STAGES, widths, strict=True)):
            blocks = nn.ModuleList()
            for index in range(stage.blocks):
                stride = stage.stride if index == 0 else 1
                blocks.append(Block(channels, width, stage.kernel, stride, number > 0, operations, **factory))
                channels = width
            self.blocks.append(blocks)
        self.conv_head = operations.Conv2d(channels, head, 1, bias=False, **factory)

    def forward(self, picture: Tensor) -> list[Tensor]:
        x, features = silu(self.conv_stem(around(picture, 3, 2))), []
        for number, blocks in enumerate(self.blocks):
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x)
            if number in SEEN:
                features.append(x)
        # The head is taken before its normalisation.
        return [*features, self.conv_head(x)]


def normalisations() -> list[tuple[str, str]]:
    """Each convolution that a normalisation follows, and that one."""
    pairs = [("conv_stem", "bn1")]
    for number, stage in enumerate(STAGES):
        convolutions = ("conv_pw", "conv_dw", "conv_pwl") if number else ("conv_dw", "conv_pw")
        for index in range(stage.blocks):
            block = f"blocks.{number}.{index}"
            pairs += [(f"{block}.{name}", f"{block}.bn{at}") for at, name in enumerate(convolutions, start=1)]
    return pairs
