"""The blocks that a control file will weigh, from its names and shapes alone: nothing is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch

from ..checkpoints.adapter import AdapterHyperparameters
from ..checkpoints.build import NOWHERE
from ..checkpoints.build_adapter import adapter_module
from ..checkpoints.encoder import EncoderHyperparameters, ResBlock
from ..checkpoints.family import Kind, Match
from ..control.controlnext import ControlNeXtNetwork
from ..control.lllite import LLLiteNetwork
from ..control.patch_network import PatchNetwork
from ..control.xs import XSNetwork
from ..residuals.blocks import Block, Layout, halve
from ..residuals.residuals import Residuals

INSIDE: dict[Kind, type[PatchNetwork]] = {"lllite": LLLiteNetwork, "xs": XSNetwork, "controlnext": ControlNeXtNetwork}
PIXELS_PER_CELL = 8
SMALLEST_ADAPTER = 64
"""Pixels that go into the coarsest cell of an adapter: its hints are multiples of it here."""


def blocks_of(match: Match, height: int, width: int) -> tuple[Block, ...] | None:
    """The blocks in a latent of `height` × `width` cells, in the order in which weights are written; None where only the loaded control knows."""
    assert match.family.loader is not None, "only families with a loader are matched"
    kind, net = match.family.loader.kind, match.hyperparameters
    if isinstance(net, AdapterHyperparameters):
        return adapter_blocks(net, height, width)
    if isinstance(net, EncoderHyperparameters):
        return encoder_layout(net).blocks(height, width)
    if kind in INSIDE:
        return INSIDE[kind](unloaded(net), None, match.family.noun, match.base).blocks(height, width)
    return None


def unloaded(found: Any) -> SimpleNamespace:
    """What a network asks of its module before it has weights."""
    return SimpleNamespace(net=getattr(found, "net", found))


def encoder_layout(net: EncoderHyperparameters) -> Layout:
    """That of the network which the host builds (`control.network.layout_of` reads it from there)."""
    level, channels = 0, net.model_channels
    encoder = [(level, channels)]
    for block in net.blocks():
        if isinstance(block, ResBlock):
            channels = block.out_channels
        else:
            level += 1
        encoder.append((level, channels))
    return Layout(tuple(encoder), (level, channels))


def adapter_blocks(net: AdapterHyperparameters, height: int, width: int) -> tuple[Block, ...]:
    """Where the host's network puts its features, told by a pass without numbers."""
    pixels = [-(-PIXELS_PER_CELL * cells // SMALLEST_ADAPTER) * SMALLEST_ADAPTER for cells in (height, width)]
    with NOWHERE, torch.no_grad():
        found = Residuals.from_host(adapter_module(net)(torch.zeros(1, net.hint_channels, *pixels)))
    blocks = found.blocks(None, pixels[0] // PIXELS_PER_CELL, pixels[1] // PIXELS_PER_CELL)
    fed = [blocks[position] for position in found.fed(None)]
    return tuple(
        Block(
            block.place, block.index, block.level, block.channels, halve(height, block.level), halve(width, block.level)
        )
        for block in fed
    )


def encoder(levels: int) -> tuple[tuple[int, int], ...]:
    """Two ResBlocks a level, as Stable Diffusion has them; channels play no part in weights."""
    return tuple((level, 0) for level in range(levels) for _ in range(3))


LAYOUTS: dict[str, Layout] = {
    "sd1": Layout(encoder(4), (3, 0)),
    "sd2": Layout(encoder(4), (3, 0)),
    "sdxl": Layout(encoder(3), (2, 0)),
}
ADAPTER = "t2i"
ADAPTER_LEVELS = 4
KINDS = (*LAYOUTS, ADAPTER)


def blocks_of_kind(kind: str, height: int, width: int) -> tuple[Block, ...]:
    """Those of a usual ControlNet for a base, or of a T2I-Adapter for Stable Diffusion 1. Raises ValueError."""
    if kind == ADAPTER:
        return tuple(
            Block("input", level, level, 0, halve(height, level), halve(width, level))
            for level in range(ADAPTER_LEVELS)
        )
    if kind not in LAYOUTS:
        raise ValueError(f"blocks is {kind!r}, but one of {', '.join(KINDS)} was expected; choose one of these.")
    return LAYOUTS[kind].blocks(height, width)


def kind_of_count(count: int) -> str | None:
    """Which of the usual kinds has so many blocks; None for any other count."""
    return next((kind for kind in KINDS if len(blocks_of_kind(kind, 1, 1)) == count), None)


def levels_of(blocks: Sequence[Block]) -> list[int]:
    """Each level of encoder and decoder once, the finest first."""
    return sorted({block.level for block in blocks if block.place != "middle"})
