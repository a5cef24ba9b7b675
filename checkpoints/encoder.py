"""The Stable Diffusion encoder with hint network and zero convolutions, as numbers: what a ControlNet file's shapes tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

# No attention module at all. A depth of 0 is a module whose projections stand without transformer blocks (SDXL small, middle).
NO_ATTENTION = -1

# Channels of the hint network at full size, a half, a quarter and an eighth (paper section 3.3; cldm.py, input_hint_block).
HINT_WIDTHS = (16, 32, 96, 256)

Shape = tuple[int, ...]


@dataclass(frozen=True)
class EncoderHyperparameters:
    """Everything about a ControlNet's network that shapes can tell; the number of attention heads is not among it."""

    in_channels: int
    model_channels: int
    hint_channels: int
    num_res_blocks: tuple[int, ...]
    """ResBlocks per level."""
    channel_mult: tuple[int, ...]
    """Width of each level in units of `model_channels`."""
    transformer_depth: tuple[int, ...]
    """Transformer blocks behind each ResBlock of the encoder; NO_ATTENTION where there is none."""
    transformer_depth_middle: int
    """The same for the middle; NO_ATTENTION for a middle of one lone ResBlock."""
    context_dim: int | None
    """Width of the text features; None without cross-attention."""
    use_linear_in_transformer: bool
    adm_in_channels: int | None
    """Width of the pooled vector y; None without."""
    hint_widths: tuple[int, ...] = field(default=HINT_WIDTHS, kw_only=True)
    """Channels of the hint network at each size; some union networks have 48, 96, 192 and 384."""

    @property
    def attention_channels(self) -> tuple[int, ...]:
        """Widths at which heads are split, each once, ascending."""
        widths = {block.out_channels for block in self.blocks() if isinstance(block, ResBlock) and block.depth > 0}
        if self.transformer_depth_middle > 0:
            widths.add(self.channel_mult[-1] * self.model_channels)
        return tuple(sorted(widths))

    def blocks(self) -> Iterator[ResBlock | Down]:
        """The blocks behind the first convolution, in order."""
        channels = self.model_channels
        depths = iter(self.transformer_depth)
        for level, (count, mult) in enumerate(zip(self.num_res_blocks, self.channel_mult, strict=True)):
            for _ in range(count):
                yield ResBlock(channels, mult * self.model_channels, next(depths))
                channels = mult * self.model_channels
            if level < len(self.channel_mult) - 1:
                yield Down(channels)


@dataclass(frozen=True)
class ResBlock:
    in_channels: int
    out_channels: int
    depth: int


@dataclass(frozen=True)
class Down:
    channels: int


def expected_shapes(net: EncoderHyperparameters) -> dict[str, Shape]:
    """Name -> shape of every tensor of such a network in cldm names (lllyasviel/ControlNet, cldm/cldm.py)."""
    width, time = net.model_channels, 4 * net.model_channels
    shapes = _conv("input_blocks.0.0", net.in_channels, width, 3)
    shapes |= _linear("time_embed.0", width, time) | _linear("time_embed.2", time, time)
    if net.adm_in_channels is not None:
        shapes |= _linear("label_emb.0.0", net.adm_in_channels, time) | _linear("label_emb.0.2", time, time)
    for index, (in_channels, out_channels) in enumerate(hint_convolutions(net)):
        shapes |= _conv(f"input_hint_block.{2 * index}", in_channels, out_channels, 3)

    shapes |= _conv("zero_convs.0.0", width, width, 1)
    channels = width
    for index, block in enumerate(net.blocks(), start=1):
        name = f"input_blocks.{index}"
        if isinstance(block, Down):
            channels = block.channels
            shapes |= _conv(f"{name}.0.op", channels, channels, 3)
        else:
            channels = block.out_channels
            shapes |= _res_block(f"{name}.0", block.in_channels, channels, time)
            shapes |= _attention(f"{name}.1", channels, block.depth, net)
        shapes |= _conv(f"zero_convs.{index}.0", channels, channels, 1)

    shapes |= _res_block("middle_block.0", channels, channels, time)
    if net.transformer_depth_middle != NO_ATTENTION:
        shapes |= _attention("middle_block.1", channels, net.transformer_depth_middle, net)
        shapes |= _res_block("middle_block.2", channels, channels, time)
    return shapes | _conv("middle_block_out.0", channels, channels, 1)


def hint_convolutions(net: EncoderHyperparameters) -> list[tuple[int, int]]:
    """Input and output channels of the hint network's convolutions, in order."""
    widths = [net.hint_channels, *(width for width in net.hint_widths for _ in range(2))]
    widths[-1] = net.model_channels
    return list(pairwise(widths))


def _conv(name: str, in_channels: int, out_channels: int, kernel: int) -> dict[str, Shape]:
    return {f"{name}.weight": (out_channels, in_channels, kernel, kernel), f"{name}.bias": (out_channels,)}


def _linear(name: str, in_channels: int, out_channels: int, bias: bool = True) -> dict[str, Shape]:
    weight: dict[str, Shape] = {f"{name}.weight": (out_channels, in_channels)}
    return weight | {f"{name}.bias": (out_channels,)} if bias else weight


def _norm(name: str, channels: int) -> dict[str, Shape]:
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def _res_block(name: str, in_channels: int, out_channels: int, time: int) -> dict[str, Shape]:
    shapes = _norm(f"{name}.in_layers.0", in_channels) | _conv(f"{name}.in_layers.2", in_channels, out_channels, 3)
    shapes |= _linear(f"{name}.emb_layers.1", time, out_channels)
    shapes |= _norm(f"{name}.out_layers.0", out_channels) | _conv(f"{name}.out_layers.3", out_channels, out_channels, 3)
    if in_channels != out_channels:
        shapes |= _conv(f"{name}.skip_connection", in_channels, out_channels, 1)
    return shapes


def _attention(name: str, channels: int, depth: int, net: EncoderHyperparameters) -> dict[str, Shape]:
    if depth == NO_ATTENTION:
        return {}
    shapes = _norm(f"{name}.norm", channels)
    for projection in ("proj_in", "proj_out"):
        if net.use_linear_in_transformer:
            shapes |= _linear(f"{name}.{projection}", channels, channels)
        else:
            shapes |= _conv(f"{name}.{projection}", channels, channels, 1)
    for index in range(depth):
        block = f"{name}.transformer_blocks.{index}"
        for attention, width in (("attn1", channels), ("attn2", net.context_dim or channels)):
            shapes |= _linear(f"{block}.{attention}.to_q", channels, channels, bias=False)
            shapes |= _linear(f"{block}.{attention}.to_k", width, channels, bias=False)
            shapes |= _linear(f"{block}.{attention}.to_v", width, channels, bias=False)
            shapes |= _linear(f"{block}.{attention}.to_out.0", channels, channels)
        for norm in ("norm1", "norm2", "norm3"):
            shapes |= _norm(f"{block}.{norm}", channels)
        # Gated GELU: the first projection yields value and gate, each four times as wide.
        shapes |= _linear(f"{block}.ff.net.0.proj", channels, 8 * channels)
        shapes |= _linear(f"{block}.ff.net.2", 4 * channels, channels)
    return shapes
