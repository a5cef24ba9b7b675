"""T2I-Adapter as numbers: what its file's shapes tell, and the shapes that follow (arXiv 2302.08453, ldm/modules/encoders/adapter.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .encoder import Shape
from .encoder_shapes import MissingNameError

LEVELS = 4
# One pixel of the network's input is a square of so many pixels of the hint: 8 for Stable Diffusion 1 and 2, 16 for XL.
PIXELS, PIXELS_XL = 8, 16
# Input widths by which XL is told: gray and colour. Nothing else in the shapes tells, since only one level of XL is halved.
XL_INPUTS = (PIXELS_XL**2, 3 * PIXELS_XL**2)


@dataclass(frozen=True)
class AdapterHyperparameters:
    """`light` adapters have bottlenecks in their levels; the others are full."""

    light: bool
    in_channels: int
    """Width behind the pixel unshuffle: hint channels times the pixels of a square."""
    channels: tuple[int, ...]
    """Width of each of the four levels."""
    res_blocks: int
    """Residual blocks per level."""
    kernel: int = 1
    convolution: bool = False
    """Whether levels are halved by a convolution rather than by averaging."""

    @property
    def xl(self) -> bool:
        return not self.light and self.in_channels in XL_INPUTS

    @property
    def hint_channels(self) -> int:
        return self.in_channels // (PIXELS_XL if self.xl else PIXELS) ** 2

    @property
    def halved(self) -> tuple[int, ...]:
        """The levels that begin with half the size of the one before."""
        return (2,) if self.xl else (1, 2, 3)


def read_adapter(shapes: Mapping[str, Shape]) -> AdapterHyperparameters:
    """The hyperparameters that these shapes (in TencentARC's names) tell. Raises MissingNameError."""
    if "conv_in.weight" not in shapes:
        return AdapterHyperparameters(
            light=True,
            in_channels=_at(shapes, "body.0.in_conv.weight")[1],
            channels=tuple(_at(shapes, f"body.{level}.out_conv.weight")[0] for level in range(LEVELS)),
            res_blocks=_count(shapes, "body.0.body.{}.block1.weight"),
        )
    blocks = max(1, _count(shapes, "body.{}.block1.weight") // LEVELS)
    return AdapterHyperparameters(
        light=False,
        in_channels=_at(shapes, "conv_in.weight")[1],
        channels=tuple(_at(shapes, f"body.{level * blocks}.block1.weight")[0] for level in range(LEVELS)),
        res_blocks=blocks,
        kernel=_at(shapes, "body.0.block2.weight")[2],
        convolution=any(name.endswith("down_opt.op.weight") for name in shapes),
    )


def adapter_shapes(net: AdapterHyperparameters) -> dict[str, Shape]:
    """Name -> shape of every tensor of such a network, in TencentARC's names."""
    return _light(net) if net.light else _full(net)


def _full(net: AdapterHyperparameters) -> dict[str, Shape]:
    shapes = _conv("conv_in", net.in_channels, net.channels[0], 3)
    before = net.channels[0]
    for level, channels in enumerate(net.channels):
        for block in range(net.res_blocks):
            name = f"body.{level * net.res_blocks + block}"
            if block == 0 and net.convolution and level in net.halved:
                shapes |= _conv(f"{name}.down_opt.op", before, before, 3)
            if before != channels:
                shapes |= _conv(f"{name}.in_conv", before, channels, net.kernel)
            shapes |= _conv(f"{name}.block1", channels, channels, 3)
            shapes |= _conv(f"{name}.block2", channels, channels, net.kernel)
            before = channels
    return shapes


def _light(net: AdapterHyperparameters) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    before = net.in_channels
    for level, channels in enumerate(net.channels):
        inner = channels // 4
        shapes |= _conv(f"body.{level}.in_conv", before, inner, 1)
        for block in range(net.res_blocks):
            shapes |= _conv(f"body.{level}.body.{block}.block1", inner, inner, 3)
            shapes |= _conv(f"body.{level}.body.{block}.block2", inner, inner, 3)
        shapes |= _conv(f"body.{level}.out_conv", inner, channels, 1)
        before = channels
    return shapes


def _conv(name: str, in_channels: int, out_channels: int, kernel: int) -> dict[str, Shape]:
    return {f"{name}.weight": (out_channels, in_channels, kernel, kernel), f"{name}.bias": (out_channels,)}


def _at(shapes: Mapping[str, Shape], name: str) -> Shape:
    shape = shapes.get(name)
    if shape is None or len(shape) != 4:
        raise MissingNameError(name)
    return shape


def _count(shapes: Mapping[str, Shape], name: str) -> int:
    count = 0
    while name.format(count) in shapes:
        count += 1
    return count
