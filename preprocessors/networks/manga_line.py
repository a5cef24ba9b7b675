"""The structural lines of manga, without its patterns. Li et al., "Deep Extraction of Manga Structural Lines" (SIGGRAPH 2017), in the authors'
PyTorch version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu

from .folding import fold, normalisations, scale_and_shift
from .weights import NOWHERE, check_weights, filled, shapes, unmarked

WIDTH = 24
"""Channels at the picture's own size."""
REPEATS = (2, 3, 5, 7, 12)
"""Blocks of each resolution on the way down; on the way up the same, without the deepest."""
EPS = 1e-3
SLOPE = 0.2


class Affine(nn.Module):
    """A normalisation that cannot be folded: what it gets goes elsewhere, too."""

    def __init__(self, channels: int, **factory: Any):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, 1, 1, **factory))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1, **factory))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.bias.to(x), x, self.weight.to(x))


class Maker(NamedTuple):
    """How parts are made: with the normalisations as the file has them, or with those folded that can be."""

    normalised: bool
    operations: Any
    factory: dict[str, Any]

    def part(self, channels: int, out_channels: int, kernel: int, stride: int = 1, folded: bool = False) -> nn.Module:
        """Normalisation, activation, convolution, by the published places."""
        part = nn.Module()
        part.model = nn.ModuleDict()
        if self.normalised:
            part.model["0"] = nn.BatchNorm2d(channels, eps=EPS, **self.factory)
        elif not folded:
            part.model["0"] = Affine(channels, **self.factory)
        part.model["2"] = self.operations.Conv2d(
            channels, out_channels, kernel, stride=stride, padding=kernel // 2, **self.factory
        )
        return part


def applied(part: nn.Module, x: Tensor) -> Tensor:
    """The folded normalisation came with `x`, which is not needed any more."""
    model: Any = part.model
    x = model["0"](x) if "0" in model else x
    return model["2"](leaky_relu(x, SLOPE, inplace=True))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Two convolutions beside a shortcut; `step` 2 halves the picture, -2 doubles it."""

    def __init__(self, maker: Maker, channels: int, out_channels: int, step: int = 1):
        super().__init__()
        self.doubles = step < 0
        stride = max(step, 1)
        self.conv1 = maker.part(channels, out_channels, 3, stride)
        self.residual = maker.part(out_channels, out_channels, 3, folded=True)
        self.converts = channels != out_channels or stride > 1
        if self.converts:
            self.shortcut = nn.Module()
            self.shortcut.model = nn.ModuleDict(
                {"0": maker.operations.Conv2d(channels, out_channels, 1, stride=stride, **maker.factory)}
            )

    def forward(self, x: Tensor) -> Tensor:
        model: Any = self.shortcut.model if self.converts else None
        kept, change = model["0"](x) if self.converts else x, applied(self.conv1, x)
        if self.doubles:
            kept, change = interpolate(kept, scale_factor=2.0), interpolate(change, scale_factor=2.0)
        return applied(self.residual, change).add_(kept)


class Stage(nn.Module):
    def __init__(self, maker: Maker, channels: int, out_channels: int, steps: list[int]):
        super().__init__()
        widths = [channels, *[out_channels] * (len(steps) - 1)]
        self.model = nn.Sequential(
            *(Block(maker, inside, out_channels, step) for inside, step in zip(widths, steps, strict=True))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)  # type: ignore[no-any-return]


class MangaLine(nn.Module):
    """Gray pictures (B, 1, H, W), 0..255, both sides multiples of 16 -> how light the paper is, about 0..255, (B, 1, H, W) float32: lines are dark."""

    def __init__(self, width: int, maker: Maker):
        super().__init__()
        widths = [width * 2**depth for depth in range(len(REPEATS))]
        self.block0 = Stage(maker, 1, width, [1] * REPEATS[0])
        for depth, repeats in enumerate(REPEATS[1:], start=1):
            self.add_module(f"block{depth}", Stage(maker, widths[depth - 1], widths[depth], [1] * (repeats - 1) + [2]))
        for depth, repeats in reversed(list(enumerate(REPEATS[:-1]))):
            up = Stage(maker, widths[depth + 1], widths[depth], [-2] + [1] * (repeats - 1))
            self.add_module(f"block{8 - depth}", up)
        self.block9 = Stage(maker, width, width * 2 // 3, [1] * REPEATS[0])
        self.conv15 = maker.part(width * 2 // 3, 1, 1)

    def forward(self, gray: Tensor) -> Tensor:
        x, beside = gray, []
        for depth in range(len(REPEATS)):
            x = self.get_submodule(f"block{depth}")(x)
            beside.append(x)
        beside.pop()
        for number in range(len(REPEATS), 9):
            x = self.get_submodule(f"block{number}")(x).add_(beside.pop())
        return applied(self.conv15, self.block9(x)).float()


def build_manga_line(
    weights: Mapping[str, Tensor], *, file: str = "MangaLine", operations: Any = nn, dtype: torch.dtype = torch.float32
) -> MangaLine:
    """The network of erika.pth; its width is read from the shapes. Raises PreprocessorError."""
    weights = unmarked(weights)
    bias = weights.get("block0.model.0.conv1.model.2.bias")
    width = WIDTH if bias is None or bias.ndim != 1 else bias.shape[0]
    expected = MangaLine(width, Maker(True, nn, {"device": NOWHERE}))
    check_weights(file, "MangaLine", weights, shapes(expected))
    module = MangaLine(width, Maker(False, operations, {"device": NOWHERE, "dtype": dtype}))
    for name, eps in normalisations(expected):
        if name.endswith(".residual.model.0"):
            fold(weights, name, name.removesuffix("residual.model.0") + "conv1.model.2", eps)
        else:
            scale, shift = scale_and_shift(weights, name, eps)
            for part in ("running_mean", "running_var", "num_batches_tracked"):
                del weights[f"{name}.{part}"]
            weights[f"{name}.weight"], weights[f"{name}.bias"] = (x.reshape(-1, 1, 1) for x in (scale, shift))
    return filled(module, weights, dtype)
