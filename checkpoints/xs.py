"""ControlNet-XS as numbers: what its file's shapes tell, and the shapes that follow (arXiv 2312.06573; names of diffusers' ControlNetXSAdapter)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from .encoder import NO_ATTENTION, Shape
from .encoder_shapes import MissingNameError

RES_BLOCKS = 2
"""ResBlocks per level of the encoder, and three of the decoder: all that the classes that save such files know."""

Norms = Literal["adapter", "original"]
"""Who groups the norms of the middle: diffusers' ControlNetXSAdapter, or the network as it was trained and the classes before the adapter."""


@dataclass(frozen=True)
class XSHyperparameters:
    """The control stream: an encoder of few channels beside that of the model, which it reads from and adds to behind every block."""

    in_channels: int
    hint_channels: int
    hint_widths: tuple[int, ...]
    """Channels of the hint network's convolutions, at each of its sizes."""
    channels: tuple[int, ...]
    """Width of the stream at each level."""
    base_channels: tuple[int, ...]
    """Width of the model's blocks at each level."""
    depth: tuple[int, ...]
    """Transformer blocks behind each ResBlock; NO_ATTENTION where there is none."""
    depth_middle: int
    inner: tuple[int, ...]
    """Width of the attention at each level, which is that of the stream or a little less."""
    context_dim: int | None
    """Width of the text features; None without cross-attention."""
    linear: bool
    """Whether the attention's projections are linear rather than convolutions."""
    own_time: bool
    """Whether the file holds a time embedding."""
    norms: Norms = "adapter"

    @property
    def levels(self) -> int:
        return len(self.channels)

    @property
    def time_width(self) -> int:
        return 4 * self.base_channels[0]

    def hint_convolutions(self) -> list[tuple[int, int]]:
        """Widths before and after each convolution of the hint network between its first and last; every other one halves the size."""
        widths = [width for width in self.hint_widths for _ in range(2)]
        return list(pairwise(widths[:-1]))

    def parts(self) -> Iterator[XSPart]:
        """What stands beside each block of the model's encoder behind the first, in order."""
        before = self.channels[0]
        base = self.base_channels[0]
        for level, (channels, after) in enumerate(zip(self.channels, self.base_channels, strict=True)):
            for number in range(RES_BLOCKS):
                depth = self.depth[level * RES_BLOCKS + number]
                yield XSPart(level, number, before, base, channels, after, depth)
                before, base = channels, after
            if level < self.levels - 1:
                yield XSPart(level, RES_BLOCKS, before, base, channels, after, None)

    def skips(self) -> list[tuple[int, int]]:
        """Width of the stream and level behind each block of the model's encoder, the first included."""
        behind = [(part.channels, part.level + (part.depth is None)) for part in self.parts()]
        return [(self.channels[0], 0), *behind]

    def decoder(self) -> list[tuple[int, int, int]]:
        """Level, width of the stream and width of the model's feature before each block of the model's decoder."""
        places = []
        feature = self.base_channels[-1]
        for number, (channels, level) in enumerate(reversed(self.skips())):
            places.append((level, channels, feature))
            feature = self.base_channels[self.levels - 1 - number // (RES_BLOCKS + 1)]
        return places


@dataclass(frozen=True)
class XSPart:
    """A ResBlock (with its attention) or a halving (depth None) of the stream, beside a block of the model."""

    level: int
    number: int
    """In its level."""
    before: int
    """Width of the stream before it, to which `base` channels of the model are joined."""
    base: int
    channels: int
    base_after: int
    """Width of the model's feature behind it."""
    depth: int | None


def read_xs(shapes: Mapping[str, Shape], norms: Norms = "adapter") -> XSHyperparameters:
    """The hyperparameters that these shapes tell, if any network has them; `xs_shapes` tells whether. Raises MissingNameError."""
    hint_widths = [_at(shapes, "controlnet_cond_embedding.conv_in.weight", 4)[0]]
    while f"controlnet_cond_embedding.blocks.{2 * len(hint_widths) - 1}.weight" in shapes:
        hint_widths.append(_at(shapes, f"controlnet_cond_embedding.blocks.{2 * len(hint_widths) - 1}.weight", 4)[0])
    channels: list[int] = []
    base_channels: list[int] = []
    while f"down_blocks.{len(channels)}.resnets.0.conv1.weight" in shapes:
        level = f"down_blocks.{len(channels)}"
        channels.append(_at(shapes, f"{level}.resnets.0.conv1.weight", 4)[0])
        base_channels.append(_at(shapes, f"{level}.ctrl_to_base.0.weight", 4)[0])
    if not channels:
        raise MissingNameError("down_blocks.0.resnets.0.conv1.weight")
    attentions = [
        f"down_blocks.{level}.attentions.{number}" for level in range(len(channels)) for number in range(RES_BLOCKS)
    ]
    middle = "mid_block.midblock.attentions.0"
    inner = [
        _first(shapes, f"{attentions[RES_BLOCKS * level]}.proj_in.weight", width)
        for level, width in enumerate(channels)
    ]
    inner[-1] = _first(shapes, f"{middle}.proj_in.weight", inner[-1])
    text = [f"{name}.transformer_blocks.0.attn2.to_k.weight" for name in (*attentions, middle)]
    projections = [shapes[name] for block in (*attentions, middle) if (name := f"{block}.proj_in.weight") in shapes]
    context = next((_at(shapes, name, 2)[1] for name in text if name in shapes), None)
    return XSHyperparameters(
        in_channels=_at(shapes, "conv_in.weight", 4)[1],
        hint_channels=_at(shapes, "controlnet_cond_embedding.conv_in.weight", 4)[1],
        hint_widths=tuple(hint_widths),
        channels=tuple(channels),
        base_channels=tuple(base_channels),
        depth=tuple(_depth(shapes, name) for name in attentions),
        depth_middle=_depth(shapes, middle),
        inner=tuple(inner),
        context_dim=context,
        linear=not projections or len(projections[0]) == 2,
        own_time="time_embedding.linear_1.weight" in shapes,
        norms=norms,
    )


def xs_shapes(net: XSHyperparameters) -> dict[str, Shape]:
    """Name -> shape of every tensor of such a network."""
    shapes = _conv("controlnet_cond_embedding.conv_in", net.hint_channels, net.hint_widths[0], 3)
    for index, (before, after) in enumerate(net.hint_convolutions()):
        shapes |= _conv(f"controlnet_cond_embedding.blocks.{index}", before, after, 3)
    shapes |= _conv("controlnet_cond_embedding.conv_out", net.hint_widths[-1], net.channels[0], 3)
    if net.own_time:
        shapes |= _linear("time_embedding.linear_1", net.base_channels[0], net.time_width)
        shapes |= _linear("time_embedding.linear_2", net.time_width, net.time_width)
    shapes |= _conv("conv_in", net.in_channels, net.channels[0], 3)
    shapes |= _conv("control_to_base_for_conv_in", net.channels[0], net.base_channels[0], 1)
    for part in net.parts():
        level, joined = f"down_blocks.{part.level}", part.before + part.base
        shapes |= _conv(f"{level}.base_to_ctrl.{part.number}", part.base, part.base, 1)
        shapes |= _conv(f"{level}.ctrl_to_base.{part.number}", part.channels, part.base_after, 1)
        if part.depth is None:
            shapes |= _conv(f"{level}.downsamplers.conv", joined, part.channels, 3)
        else:
            shapes |= _res_block(f"{level}.resnets.{part.number}", joined, part.channels, net.time_width)
            shapes |= _attention(f"{level}.attentions.{part.number}", part.channels, part.depth, part.level, net)
    channels, base = net.channels[-1], net.base_channels[-1]
    shapes |= _conv("mid_block.base_to_ctrl", base, base, 1) | _conv("mid_block.ctrl_to_base", channels, base, 1)
    shapes |= _res_block("mid_block.midblock.resnets.0", channels + base, channels, net.time_width)
    shapes |= _attention("mid_block.midblock.attentions.0", channels, net.depth_middle, net.levels - 1, net)
    shapes |= _res_block("mid_block.midblock.resnets.1", channels, channels, net.time_width)
    for number, (_, width, feature) in enumerate(net.decoder()):
        block, position = divmod(number, RES_BLOCKS + 1)
        shapes |= _conv(f"up_connections.{block}.ctrl_to_base.{position}", width, feature, 1)
    return shapes


def _conv(name: str, before: int, after: int, kernel: int) -> dict[str, Shape]:
    return {f"{name}.weight": (after, before, kernel, kernel), f"{name}.bias": (after,)}


def _linear(name: str, before: int, after: int, bias: bool = True) -> dict[str, Shape]:
    return {f"{name}.weight": (after, before)} | ({f"{name}.bias": (after,)} if bias else {})


def _norm(name: str, channels: int) -> dict[str, Shape]:
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def _res_block(name: str, before: int, after: int, time: int) -> dict[str, Shape]:
    shapes = _norm(f"{name}.norm1", before) | _conv(f"{name}.conv1", before, after, 3)
    shapes |= _linear(f"{name}.time_emb_proj", time, after)
    shapes |= _norm(f"{name}.norm2", after) | _conv(f"{name}.conv2", after, after, 3)
    return shapes | (_conv(f"{name}.conv_shortcut", before, after, 1) if before != after else {})


def _attention(name: str, channels: int, depth: int, level: int, net: XSHyperparameters) -> dict[str, Shape]:
    if depth == NO_ATTENTION:
        return {}
    inner = net.inner[level]
    shapes = _norm(f"{name}.norm", channels)
    for projection, before, after in (("proj_in", channels, inner), ("proj_out", inner, channels)):
        place = f"{name}.{projection}"
        shapes |= _linear(place, before, after) if net.linear else _conv(place, before, after, 1)
    for index in range(depth):
        block = f"{name}.transformer_blocks.{index}"
        for attention, width in (("attn1", inner), ("attn2", net.context_dim or inner)):
            shapes |= _linear(f"{block}.{attention}.to_q", inner, inner, bias=False)
            shapes |= _linear(f"{block}.{attention}.to_k", width, inner, bias=False)
            shapes |= _linear(f"{block}.{attention}.to_v", width, inner, bias=False)
            shapes |= _linear(f"{block}.{attention}.to_out.0", inner, inner)
        for norm in ("norm1", "norm2", "norm3"):
            shapes |= _norm(f"{block}.{norm}", inner)
        # Gated GELU: value and gate, each four times as wide.
        shapes |= _linear(f"{block}.ff.net.0.proj", inner, 8 * inner) | _linear(f"{block}.ff.net.2", 4 * inner, inner)
    return shapes


def _at(shapes: Mapping[str, Shape], name: str, dimensions: int) -> Shape:
    shape = shapes.get(name)
    if shape is None or len(shape) != dimensions or 0 in shape:
        raise MissingNameError(name)
    return shape


def _first(shapes: Mapping[str, Shape], name: str, otherwise: int) -> int:
    return (shapes.get(name) or (otherwise,))[0]


def _depth(shapes: Mapping[str, Shape], attention: str) -> int:
    if f"{attention}.proj_in.weight" not in shapes:
        return NO_ATTENTION
    depth = 0
    while f"{attention}.transformer_blocks.{depth}.norm1.weight" in shapes:
        depth += 1
    return depth
