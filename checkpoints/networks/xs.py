"""ControlNet-XS's control stream, under the names of diffusers' ControlNetXSAdapter (arXiv 2312.06573)."""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd
from typing import Any, NamedTuple

import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from torch import Tensor, nn
from torch.nn.functional import silu

from ..encoder import NO_ATTENTION
from ..xs import RES_BLOCKS, XSHyperparameters, XSPart
from ..xs_settings import XSSettings

MOST_GROUPS = 32
EPSILON = 1e-5
ADAPTER_MIDDLE_EPSILON = ATTENTION_EPSILON = 1e-6


def groups_of(channels: int) -> int:
    """The most groups, up to 32, into which so many channels can be divided."""
    return next(groups for groups in range(min(MOST_GROUPS, channels), 0, -1) if channels % groups == 0)


class Make(NamedTuple):
    """What all parts are made with; `ops` are the host's operations, `factory` dtype and device."""

    net: XSHyperparameters
    settings: XSSettings
    ops: Any
    attn_precision: torch.dtype | None
    factory: dict[str, Any]

    def conv(self, before: int, after: int) -> Any:
        return self.ops.Conv2d(before, after, 1, **self.factory)


class ResBlock(nn.Module):
    """`groups`: of its two norms."""

    def __init__(
        self, before: int, after: int, make: Make, groups: tuple[int, int] | None = None, eps: float = EPSILON
    ) -> None:
        super().__init__()
        ops, factory = make.ops, make.factory
        first, second = groups or (groups_of(before), groups_of(after))
        self.norm1 = ops.GroupNorm(first, before, eps=eps, **factory)
        self.conv1 = ops.Conv2d(before, after, 3, padding=1, **factory)
        self.time_emb_proj = ops.Linear(make.net.time_width, after, **factory)
        self.norm2 = ops.GroupNorm(second, after, eps=eps, **factory)
        self.conv2 = ops.Conv2d(after, after, 3, padding=1, **factory)
        self.conv_shortcut = None if before == after else make.conv(before, after)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(silu(self.norm1(x))) + self.time_emb_proj(silu(emb))[:, :, None, None]
        h = self.conv2(silu(self.norm2(h)))
        out: Tensor = h + (x if self.conv_shortcut is None else self.conv_shortcut(x))
        return out


class Transformer(nn.Module):
    """As the host's SpatialTransformer, whose norm has always 32 groups."""

    def __init__(self, level: int, depth: int, make: Make, groups: int | None = None) -> None:
        super().__init__()
        net, ops, factory = make.net, make.ops, make.factory
        channels, inner, heads = net.channels[level], net.inner[level], make.settings.heads[level]
        self.linear = net.linear
        self.norm = ops.GroupNorm(groups or groups_of(channels), channels, eps=ATTENTION_EPSILON, **factory)
        project = ops.Linear if net.linear else lambda *sizes, **to: ops.Conv2d(*sizes, 1, **to)
        self.proj_in = project(channels, inner, **factory)
        self.transformer_blocks = nn.ModuleList(
            BasicTransformerBlock(
                inner,
                heads,
                inner // heads,
                context_dim=net.context_dim,
                attn_precision=make.attn_precision,
                operations=ops,
                **factory,
            )
            for _ in range(depth)
        )
        self.proj_out = project(inner, channels, **factory)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        h = self.norm(x)
        h = h if self.linear else self.proj_in(h)
        h = h.flatten(2).transpose(1, 2).contiguous()
        h = self.proj_in(h) if self.linear else h
        for block in self.transformer_blocks:
            # Options of its own: patches for the model's attention are not meant for the control's.
            h = block(h, context=context, transformer_options={})
        h = self.proj_out(h) if self.linear else h
        h = h.transpose(1, 2).unflatten(2, (height, width)).contiguous()
        out: Tensor = x + (h if self.linear else self.proj_out(h))
        return out


class HintNetwork(nn.Module):
    def __init__(self, net: XSHyperparameters, ops: Any, **factory: Any) -> None:
        super().__init__()
        self.conv_in = ops.Conv2d(net.hint_channels, net.hint_widths[0], 3, padding=1, **factory)
        self.blocks = nn.ModuleList(
            ops.Conv2d(before, after, 3, padding=1, stride=1 + number % 2, **factory)
            for number, (before, after) in enumerate(net.hint_convolutions())
        )
        self.conv_out = ops.Conv2d(net.hint_widths[-1], net.channels[0], 3, padding=1, **factory)

    def forward(self, hint: Tensor) -> Tensor:
        h = silu(self.conv_in(hint))
        for block in self.blocks:
            h = silu(block(h))
        embedding: Tensor = self.conv_out(h)
        return embedding


class TimeEmbedding(nn.Module):
    def __init__(self, before: int, after: int, ops: Any, **factory: Any) -> None:
        super().__init__()
        self.linear_1 = ops.Linear(before, after, **factory)
        self.linear_2 = ops.Linear(after, after, **factory)

    def forward(self, timesteps: Tensor, dtype: torch.dtype) -> Tensor:
        waves = timestep_embedding(timesteps, self.linear_1.in_features, repeat_only=False).to(dtype)
        embedding: Tensor = self.linear_2(silu(self.linear_1(waves)))
        return embedding


class Downsample(nn.Module):
    def __init__(self, before: int, after: int, ops: Any, **factory: Any) -> None:
        super().__init__()
        self.conv = ops.Conv2d(before, after, 3, stride=2, padding=1, **factory)

    def forward(self, x: Tensor) -> Tensor:
        smaller: Tensor = self.conv(x)
        return smaller


class Level(nn.Module):
    """What stands beside one level of the model's encoder."""

    def __init__(self, parts: list[XSPart], make: Make) -> None:
        super().__init__()
        self.resnets, self.attentions = nn.ModuleList(), nn.ModuleList()
        self.base_to_ctrl = nn.ModuleList(make.conv(part.base, part.base) for part in parts)
        self.ctrl_to_base = nn.ModuleList(make.conv(part.channels, part.base_after) for part in parts)
        self.downsamplers = None
        for part in parts:
            joined = part.before + part.base
            if part.depth is None:
                self.downsamplers = Downsample(joined, part.channels, make.ops, **make.factory)
                continue
            self.resnets.append(ResBlock(joined, part.channels, make))
            if part.depth != NO_ATTENTION:
                self.attentions.append(Transformer(part.level, part.depth, make))

    def forward(self, number: int, h: Tensor, emb: Tensor, context: Tensor) -> Tensor:
        if number == RES_BLOCKS:
            assert self.downsamplers is not None
            smaller: Tensor = self.downsamplers(h)
            return smaller
        h = self.resnets[number](h, emb)
        return self.attentions[number](h, context) if len(self.attentions) else h


class MidBlock(nn.Module):
    def __init__(self, channels: int, base: int, make: Make) -> None:
        super().__init__()
        net = make.net
        common, groups, eps = None, None, EPSILON
        if net.norms == "adapter":
            common, eps = groups_of(gcd(channels, channels + base)), ADAPTER_MIDDLE_EPSILON
            groups = (common, common)
        first = ResBlock(channels + base, channels, make, groups, eps)
        self.resnets = nn.ModuleList((first, ResBlock(channels, channels, make, groups, eps)))
        self.attentions = nn.ModuleList()
        if net.depth_middle != NO_ATTENTION:
            self.attentions.append(Transformer(net.levels - 1, net.depth_middle, make, common))

    def forward(self, h: Tensor, emb: Tensor, context: Tensor) -> Tensor:
        h = self.resnets[0](h, emb)
        for attention in self.attentions:
            h = attention(h, context)
        out: Tensor = self.resnets[1](h, emb)
        return out


class Middle(nn.Module):
    def __init__(self, make: Make) -> None:
        super().__init__()
        channels, base = make.net.channels[-1], make.net.base_channels[-1]
        self.base_to_ctrl = make.conv(base, base)
        self.midblock = MidBlock(channels, base, make)
        self.ctrl_to_base = make.conv(channels, base)


class UpConnections(nn.Module):
    def __init__(self, places: list[tuple[int, int, int]], make: Make) -> None:
        super().__init__()
        self.ctrl_to_base = nn.ModuleList(make.conv(width, feature) for _, width, feature in places)


class ControlStream(nn.Module):
    """Runs beside the model's encoder, block by block; the caller carries features from one to the other."""

    def __init__(
        self,
        net: XSHyperparameters,
        settings: XSSettings,
        operations: Any,
        attn_precision: torch.dtype | None = None,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.net, self.settings = net, settings
        make = Make(net, settings, operations, attn_precision, factory)
        self.controlnet_cond_embedding = HintNetwork(net, operations, **factory)
        self.time_embedding = (
            TimeEmbedding(net.base_channels[0], net.time_width, operations, **factory) if net.own_time else None
        )
        self.conv_in = operations.Conv2d(net.in_channels, net.channels[0], 3, padding=1, **factory)
        self.control_to_base_for_conv_in = make.conv(net.channels[0], net.base_channels[0])
        self.parts = list(net.parts())
        levels = [[part for part in self.parts if part.level == level] for level in range(net.levels)]
        self.down_blocks = nn.ModuleList(Level(parts, make) for parts in levels)
        self.mid_block = Middle(make)
        places = net.decoder()
        self.up_connections = nn.ModuleList(
            UpConnections(places[start : start + RES_BLOCKS + 1], make)
            for start in range(0, len(places), RES_BLOCKS + 1)
        )

    def begin(self, latent: Tensor, hint_embedding: Tensor) -> Tensor:
        """(B, 4, h, w) and (B or 1, channels, h, w) -> the stream beside the model's first convolution."""
        stream: Tensor = self.conv_in(latent) + hint_embedding
        return stream

    def beside(self, index: int, stream: Tensor, feature: Tensor, emb: Tensor, context: Tensor) -> Tensor:
        """The stream behind block `index` of the encoder (1 and up), from that before it and the model's feature before that block."""
        part = self.parts[index - 1]
        level: Any = self.down_blocks[part.level]
        joined = torch.cat([stream, level.base_to_ctrl[part.number](feature)], dim=1)
        behind: Tensor = level(part.number, joined, emb, context)
        return behind

    def middle(self, stream: Tensor, feature: Tensor, emb: Tensor, context: Tensor) -> Tensor:
        """The stream behind the middle, from that before it and the model's feature before its middle."""
        joined = torch.cat([stream, self.mid_block.base_to_ctrl(feature)], dim=1)
        behind: Tensor = self.mid_block.midblock(joined, emb, context)
        return behind

    def to_base(self) -> Iterator[Any]:
        """What makes of the stream a change of the model's feature: behind each block of the encoder, behind the middle, before each of the decoder."""
        yield self.control_to_base_for_conv_in
        levels: list[Any] = [*self.down_blocks]
        for part in self.parts:
            yield levels[part.level].ctrl_to_base[part.number]
        yield self.mid_block.ctrl_to_base
        blocks: list[Any] = [*self.up_connections]
        for block in blocks:
            yield from block.ctrl_to_base
