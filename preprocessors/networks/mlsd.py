"""M-LSD: straight lines as their middles and where their ends are from there. Gu et al., "Towards Light-weight and Real-time Line Segment
Detection" (AAAI 2022), in the two sizes of lhwcv's version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, relu6

from .folding import fold, normalisations
from .weights import NOWHERE, check_weights, filled, shapes, unmarked

FIRST = 32
"""Channels at half the picture's size."""
MOBILE = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))
"""MobileNetV2's stages: how many times wider a block is inside, its channels, how many blocks, the first one's stride."""
MAPS = slice(7, 12)
"""Of the sixteen that the last convolution makes, those that say where lines are; the others were for training."""


class Joint(NamedTuple):
    """Where features of the backbone meet those from deeper down."""

    number: int
    """In the names: the joining block; the next number is the block after it."""
    shallow: int
    """Which of the backbone's blocks they come from; its channels, and those from below, follow."""
    shallow_channels: int
    deep_channels: int
    width: int
    enlarges: bool
    out_channels: int = 64


class Variant(NamedTuple):
    stages: int
    deepest: int
    joints: tuple[Joint, ...]
    last: int
    """The number of the last block."""
    enlarges: bool
    """Whether the maps come out at a quarter of the picture's size, and are enlarged to half of it."""


TINY = Variant(4, 10, (Joint(12, 6, 32, 64, 64, True), Joint(14, 3, 24, 64, 32, True)), 16, True)
LARGE = Variant(
    5,
    13,
    (
        Joint(15, 10, 64, 96, 64, False),
        Joint(17, 6, 32, 64, 64, True),
        Joint(19, 3, 24, 64, 64, True),
        Joint(21, 1, 16, 64, 64, True),
    ),
    23,
    False,
)


class Maker(NamedTuple):
    """How convolutions are made: with the normalisations as the files have them, or with those folded into them."""

    normalised: bool
    operations: Any
    factory: dict[str, Any]

    def convolution(
        self, channels: int, out_channels: int, kernel: int, bias: bool = False, **settings: Any
    ) -> nn.Conv2d:
        bias = bias or not self.normalised
        made: nn.Conv2d = self.operations.Conv2d(channels, out_channels, kernel, bias=bias, **settings, **self.factory)
        return made

    def pair(self, *arguments: Any, **settings: Any) -> list[nn.Module]:
        """A convolution and the normalisation after it."""
        convolution = self.convolution(*arguments, **settings)
        norm = nn.BatchNorm2d(convolution.out_channels, **self.factory) if self.normalised else nn.Identity()
        return [convolution, norm]


class Active(nn.Sequential):
    """A convolution of the backbone, cut off at 0 and 6. With stride 2 it looks at one pixel beyond the right and lower edge, and at none beyond
    the others, as TensorFlow Lite does.
    """

    def __init__(self, maker: Maker, channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1):
        padding = 0 if stride == 2 else kernel // 2
        super().__init__(*maker.pair(channels, out_channels, kernel, stride=stride, padding=padding, groups=groups))
        self.halves = stride == 2

    def forward(self, x: Tensor) -> Tensor:
        return relu6(self[0](pad(x, (0, 1, 0, 1)) if self.halves else x), inplace=True)


class Inverted(nn.Module):
    """MobileNetV2's block: wide inside, narrow at both ends."""

    def __init__(self, maker: Maker, channels: int, out_channels: int, stride: int, wider: int):
        super().__init__()
        inside = channels * wider
        widening = [Active(maker, channels, inside, 1)] if wider > 1 else []
        self.conv = nn.Sequential(
            *widening, Active(maker, inside, inside, 3, stride, inside), *maker.pair(inside, out_channels, 1)
        )
        self.adds = stride == 1 and channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.conv(x)
        return change.add_(x) if self.adds else change


class Meeting(nn.Module):
    def __init__(self, maker: Maker, joint: Joint):
        super().__init__()
        self.conv1 = nn.Sequential(*maker.pair(joint.deep_channels, joint.width, 1, bias=True))
        self.conv2 = nn.Sequential(*maker.pair(joint.shallow_channels, joint.width, 1, bias=True))
        self.enlarges = joint.enlarges

    def forward(self, shallow: Tensor, deep: Tensor) -> Tensor:
        shallow, deep = self.conv2(shallow).relu_(), self.conv1(deep).relu_()
        if self.enlarges:
            deep = interpolate(deep, scale_factor=2.0, mode="bilinear", align_corners=True)
        return torch.cat((shallow, deep), 1)


class Refining(nn.Module):
    def __init__(self, maker: Maker, channels: int, out_channels: int):
        super().__init__()
        self.conv1 = nn.Sequential(*maker.pair(channels, channels, 3, bias=True, padding=1))
        self.conv2 = nn.Sequential(*maker.pair(channels, out_channels, 3, bias=True, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x).relu_().add_(x)).relu_()  # type: ignore[no-any-return]


class Last(nn.Module):
    def __init__(self, maker: Maker, channels: int, maps: int):
        super().__init__()
        self.conv1 = nn.Sequential(*maker.pair(channels, channels, 3, bias=True, padding=5, dilation=5))
        self.conv2 = nn.Sequential(*maker.pair(channels, channels, 3, bias=True, padding=1))
        self.conv3 = maker.convolution(channels, maps, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(self.conv2(self.conv1(x).relu_()).relu_())  # type: ignore[no-any-return]


class Backbone(nn.Module):
    """MobileNetV2 as far as it is needed."""

    def __init__(self, maker: Maker, stages: int):
        super().__init__()
        features: list[nn.Module] = [Active(maker, 4, FIRST, 3, stride=2)]
        channels = FIRST
        for wider, out_channels, count, stride in MOBILE[:stages]:
            for number in range(count):
                features.append(Inverted(maker, channels, out_channels, 1 if number else stride, wider))
                channels = out_channels
        self.features = nn.ModuleList(features)


class MLSD(nn.Module):
    """RGB pictures (B, 3, H, W), 0..1, both sides multiples of 16 -> (B, 5, H/2, W/2) float32: the logit that a line's middle is there, and from
    there the way to its one end (x, y) and the other (x, y), in these pixels.
    """

    def __init__(self, variant: Variant, maker: Maker, maps: int):
        super().__init__()
        self.variant = variant
        self.backbone = Backbone(maker, variant.stages)
        for joint in variant.joints:
            self.add_module(f"block{joint.number}", Meeting(maker, joint))
            self.add_module(f"block{joint.number + 1}", Refining(maker, 2 * joint.width, joint.out_channels))
        self.add_module(f"block{variant.last}", Last(maker, variant.joints[-1].out_channels, maps))

    def forward(self, picture: Tensor) -> Tensor:
        # The fourth channel is one of 255.
        x = pad(picture * 2 - 1, (0, 0, 0, 0, 0, 1), value=1 / 127.5 - 1)
        kept = {joint.shallow for joint in self.variant.joints}
        seen = {}
        for number, block in enumerate(self.backbone.features):
            x = block(x)
            if number in kept:
                seen[number] = x
        for joint in self.variant.joints:
            x = self.get_submodule(f"block{joint.number}")(seen.pop(joint.shallow), x)
            x = self.get_submodule(f"block{joint.number + 1}")(x)
        x = self.get_submodule(f"block{self.variant.last}")(x)
        if self.variant.enlarges:
            x = interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)
        return x.float()


def build_mlsd(
    weights: Mapping[str, Tensor], *, file: str = "M-LSD", operations: Any = nn, dtype: torch.dtype = torch.float32
) -> MLSD:
    """The network of either published file; which one it is, its names say. Raises PreprocessorError."""
    weights = unmarked(weights)
    variant = TINY if f"block{TINY.last}.conv3.weight" in weights else LARGE
    expected = MLSD(variant, Maker(True, nn, {"device": NOWHERE}), 16)
    check_weights(file, "M-LSD", weights, shapes(expected))
    for name, eps in normalisations(expected):
        parent, _, index = name.rpartition(".")
        fold(weights, name, f"{parent}.{int(index) - 1}", eps)
    for part in ("weight", "bias"):
        name = f"block{variant.last}.conv3.{part}"
        weights[name] = weights[name][MAPS].clone()
    return filled(MLSD(variant, Maker(False, operations, {"device": NOWHERE, "dtype": dtype}), 5), weights, dtype)
