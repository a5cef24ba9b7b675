"""PiDiNet: edges from differences of pixels. Su et al., "Pixel Difference Networks for Efficient Edge Detection" (ICCV 2021).

The difference convolutions are ordinary ones with weights that depend on each other, and are made so when a file is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from .weights import NOWHERE, check_weights, filled, shapes, unmarked

Difference = Literal["central", "angular", "radial", "none"]

STAGES = (3, 4, 4, 4)
"""Blocks of each resolution: fifteen, with the first convolution sixteen differences of pixels."""
WIDTHS = (1, 2, 4, 4)
"""Of each resolution, in first convolution's channels."""
PIXEL_DIFFERENCES: tuple[Difference, ...] = ("central", "angular", "radial", "none")
"""Which kind the sixteen convolutions are, in turn: "carv4" in the published code."""
BASELINE: tuple[Difference, ...] = ("none",)

# Positions of a 3x3 kernel in rows: from each the one before it on the way round is subtracted (the centre from itself).
TURNED = (3, 0, 1, 6, 4, 2, 7, 8, 5)
# Of a 5x5 kernel: the outer ring gets the eight last of the 3x3 weights, the inner ring the same with a minus.
OUTER = (0, 2, 4, 10, 14, 20, 22, 24)
INNER = (6, 7, 8, 11, 13, 16, 17, 18)


class Variant(NamedTuple):
    """What differs between the published files."""

    channels: int
    dilated: int
    """Channels of the modules of dilated convolutions; 0: there are none."""
    attention: bool


class Block(nn.Module):
    """A depthwise convolution and a mixing one beside a shortcut; the first of each lower resolution halves the picture."""

    def __init__(self, channels: int, out_channels: int, kernel: int, halves: bool, operations: Any, **factory: Any):
        super().__init__()
        self.halves = halves
        if halves:
            self.shortcut = operations.Conv2d(channels, out_channels, 1, **factory)
        self.conv1 = operations.Conv2d(
            channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False, **factory
        )
        self.conv2 = operations.Conv2d(channels, out_channels, 1, bias=False, **factory)

    def forward(self, x: Tensor) -> Tensor:
        if self.halves:
            x = nn.functional.max_pool2d(x, 2)
        change = self.conv2(self.conv1(x).relu())
        return change + (self.shortcut(x) if self.halves else x)  # type: ignore[no-any-return]


class Dilations(nn.Module):
    """Four dilated views of the features, summed."""

    def __init__(self, channels: int, out_channels: int, operations: Any, **factory: Any):
        super().__init__()
        self.conv1 = operations.Conv2d(channels, out_channels, 1, **factory)
        for number, dilation in enumerate((5, 7, 9, 11), start=1):
            view = operations.Conv2d(
                out_channels, out_channels, 3, dilation=dilation, padding=dilation, bias=False, **factory
            )
            self.add_module(f"conv2_{number}", view)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x.relu())
        views = (self.get_submodule(f"conv2_{number}")(x) for number in range(1, 5))
        return sum(views, torch.zeros_like(x))


class Attention(nn.Module):
    """One weight for each place."""

    def __init__(self, channels: int, operations: Any, **factory: Any):
        super().__init__()
        self.conv1 = operations.Conv2d(channels, 4, 1, **factory)
        self.conv2 = operations.Conv2d(4, 1, 3, padding=1, bias=False, **factory)

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = self.conv2(self.conv1(x.relu())).sigmoid()
        return x * weight


class Reduction(nn.Module):
    """Features to one map."""

    def __init__(self, channels: int, operations: Any, **factory: Any):
        super().__init__()
        self.conv = operations.Conv2d(channels, 1, 1, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)  # type: ignore[no-any-return]


class PiDiNet(nn.Module):
    """BGR pictures (B, 3, H, W), 0..1, at least 8 pixels each way -> logits of edges (B, 1, H, W), float32."""

    def __init__(self, variant: Variant, kernels: tuple[int, ...], operations: Any = nn, **factory: Any):
        super().__init__()
        first, *rest = kernels
        self.init_block = operations.Conv2d(3, variant.channels, first, padding=first // 2, bias=False, **factory)
        channels, self.stages = variant.channels, []
        for stage, (count, width) in enumerate(zip(STAGES, WIDTHS, strict=True), start=1):
            names = [f"block{stage}_{number}" for number in range(1, count + 1)]
            for name in names:
                halves = stage > 1 and name == names[0]
                out_channels = variant.channels * width
                self.add_module(name, Block(channels, out_channels, rest.pop(0), halves, operations, **factory))
                channels = out_channels
            self.stages.append(names)
        widths = [variant.channels * width for width in WIDTHS]
        if variant.dilated:
            self.dilations = nn.ModuleList(Dilations(width, variant.dilated, operations, **factory) for width in widths)
            widths = [variant.dilated] * len(widths)
        if variant.attention:
            self.attentions = nn.ModuleList(Attention(width, operations, **factory) for width in widths)
        self.conv_reduces = nn.ModuleList(Reduction(width, operations, **factory) for width in widths)
        self.classifier = operations.Conv2d(len(widths), 1, 1, **factory)

    def forward(self, picture: Tensor) -> Tensor:
        size = picture.shape[2:]
        x, maps = self.init_block(picture), []
        for index, names in enumerate(self.stages):
            for name in names:
                x = self.get_submodule(name)(x)
            maps.append(interpolate(self.reduce(index, x), size, mode="bilinear", align_corners=False))
        return self.classifier(torch.cat(maps, 1)).float()  # type: ignore[no-any-return]

    def reduce(self, index: int, x: Tensor) -> Tensor:
        for parts in ("dilations", "attentions", "conv_reduces"):
            if hasattr(self, parts):
                x = getattr(self, parts)[index](x)
        return x


def ordinary(weight: Tensor, difference: Difference) -> Tensor:
    """The kernel (O, I, 3, 3) of a convolution of pixel differences as that of an ordinary one, 3x3 or for radial 5x5."""
    flat = weight.flatten(2)
    if difference == "central":
        flat = flat.clone()
        flat[..., 4] -= weight.sum((2, 3))
    elif difference == "angular":
        flat = flat - flat[..., TURNED]
    elif difference == "radial":
        wide = flat.new_zeros(*flat.shape[:2], 25)
        wide[..., OUTER] = flat[..., 1:]
        wide[..., INNER] = -flat[..., 1:]
        return wide.reshape(*wide.shape[:2], 5, 5)
    return flat.reshape(weight.shape)


def build_pidinet(
    weights: Mapping[str, Tensor],
    *,
    file: str = "PiDiNet",
    operations: Any = nn,
    dtype: torch.dtype = torch.float32,
    differences: tuple[Difference, ...] = PIXEL_DIFFERENCES,
) -> PiDiNet:
    """The network of a published file; its size is read from the shapes. Raises PreprocessorError."""
    weights = unmarked(weights)
    variant = variant_of(weights)
    total = sum(STAGES) + 1
    expected = PiDiNet(variant, (3,) * total, device=NOWHERE)
    check_weights(file, "PiDiNet", weights, shapes(expected))
    names = ["init_block", *(f"{name}.conv1" for stage in expected.stages for name in stage)]
    kinds = (differences * total)[:total]
    for name, kind in zip(names, kinds, strict=True):
        weights[f"{name}.weight"] = ordinary(weights[f"{name}.weight"].float(), kind)
    kernels = tuple(5 if kind == "radial" else 3 for kind in kinds)
    return filled(PiDiNet(variant, kernels, operations, device=NOWHERE, dtype=dtype), weights, dtype)


def variant_of(weights: Mapping[str, Tensor]) -> Variant:
    """By names and shapes; where a name is missing, the published file's, so that the check names it."""

    def channels(name: str, otherwise: int) -> int:
        found = weights.get(name)
        return otherwise if found is None or found.ndim != 4 else found.shape[0]

    dilated = any(name.startswith("dilations.") for name in weights)
    return Variant(
        channels("init_block.weight", 60),
        channels("dilations.0.conv1.weight", 24) if dilated else 0,
        any(name.startswith("attentions.") for name in weights),
    )
