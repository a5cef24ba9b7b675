"""Residuals: what a control adds to the UNet, one per block, and the weights that shape them. Pure torch, no ComfyUI."""

from .blocks import Block, Layout, Place
from .residuals import Residuals, ResidualShapeError

__all__ = ["Block", "Layout", "Place", "ResidualShapeError", "Residuals"]
