"""Residuals: what a control adds to the UNet, one per block, and the weights that shape them. Pure torch, no ComfyUI."""

from .blocks import Block, Layout, Place
from .residuals import Accumulator, Residuals, ResidualShapeError
from .weights import BlockWeights, Flat, Product, ResolutionWeights

__all__ = [
    "Accumulator",
    "Block",
    "BlockWeights",
    "Flat",
    "Layout",
    "Place",
    "Product",
    "ResidualShapeError",
    "Residuals",
    "ResolutionWeights",
]
