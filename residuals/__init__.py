"""Residuals: what a control adds to the UNet, one per block, and the weights that shape them. Pure torch, no ComfyUI."""

from .block_values import ListedWeights, NamedWeights, parse_block_values
from .blocks import Block, Layout, Place
from .presets import PRESETS, Preset
from .residuals import Accumulator, Residuals, ResidualShapeError
from .weights import BlockWeights, BlockWeightsError, Flat, LevelWeights, Product, ResolutionWeights, SoftWeights

__all__ = [
    "PRESETS",
    "Accumulator",
    "Block",
    "BlockWeights",
    "BlockWeightsError",
    "Flat",
    "Layout",
    "LevelWeights",
    "ListedWeights",
    "NamedWeights",
    "Place",
    "Preset",
    "Product",
    "ResidualShapeError",
    "Residuals",
    "ResolutionWeights",
    "SoftWeights",
    "parse_block_values",
]
