"""What one encoder network needs of the device's memory beside its weights, in bytes."""

from __future__ import annotations

import comfy.model_management
import torch

from .hint import PICTURES_PER_PASS
from .network import HINT_PIXELS_PER_CELL, EncoderNetwork

CELLS_PER_PASS = 8 * 64 * 64
"""On a GPU a network evaluates as many rows at a time as have this many latent cells, eight at 512×512 pixels: small batches leave it idle."""
CELLS_ON_CPU = 2 * 64 * 64
"""The same on a CPU: two rows at 512×512 pixels, many of small pictures."""

WIDTH = 320
"""Channels of the first level in the models for which the host's figures are: UNets of memory_usage_factor 1."""
ACTIVATION_BYTES_PER_CELL = 0.01 * 1024 * 1024
"""For each byte of the dtype: what the host counts for one latent cell of such a model (`BaseModel.memory_required`)."""
ACTIVATION_BYTES_WITH_SCORES = 0.15 * 1024 * 1024
"""The same for any dtype, where attention keeps its scores."""
LEAST_ACTIVATIONS = 20
"""Numbers that a model has alive at its peak for each cell and channel at the least: measured 26 in a narrow one, whose feed-forward layers have 17 of them."""
TOKENS = 77

LARGE_WORKSPACES = (9, 10, 12)
LARGE_WORKSPACE, WORKSPACE = 4096 * 8 * 1024, 4096 * 1024 * 2 + 16 * 1024 * 8
"""cuBLAS keeps one for each stream, larger on GPUs of these major capabilities: `parseChosenWorkspaceSize` in PyTorch's
aten/src/ATen/cuda/CublasHandlePool.cpp, 2.7 and later."""


def rows_per_pass(rows: int, batch: int, cells: int, on_cpu: bool) -> int:
    """How many of the `rows` of a network it evaluates at a time, of latents of so many `cells`, for a `batch` of the UNet.

    On a GPU at least as many as the UNet's, because small batches leave it idle. A CPU gains nothing from batches of large latents, and few rows
    need little memory. A fixed number, not one that follows free memory, because the size of a batch changes the last bits of a result.
    """
    if rows <= batch:
        return batch
    return max(1, CELLS_ON_CPU // cells) if on_cpu else max(batch, CELLS_PER_PASS // cells)


def residual_bytes(network: EncoderNetwork, rows: int, height: int, width: int) -> int:
    """One residual for each block."""
    values = sum(block.channels * block.height * block.width for block in network.blocks(height, width))
    return rows * values * network.dtype.itemsize


def activation_bytes(network: EncoderNetwork, rows: int, height: int, width: int) -> float:
    """The network's layers at their peak, the residuals that are there by then among them: as the host counts a UNet's, which has the same layers."""
    per_cell = ACTIVATION_BYTES_PER_CELL * network.dtype.itemsize
    if not (comfy.model_management.pytorch_attention_enabled() or comfy.model_management.xformers_enabled()):
        per_cell = ACTIVATION_BYTES_WITH_SCORES
    return rows * height * width * per_cell * network.model_channels / WIDTH


def model_bytes(network: EncoderNetwork, rows: int, height: int, width: int) -> int:
    """What the model has at its peak at the least, while it makes a step of so many rows: its encoder is that of the network."""
    return rows * height * width * LEAST_ACTIVATIONS * network.model_channels * network.dtype.itemsize


def embedding_bytes(network: EncoderNetwork, pictures: int, height: int, width: int) -> int:
    return pictures * height * width * network.model_channels * network.dtype.itemsize


def hint_bytes(network: EncoderNetwork, pictures: int, height: int, width: int) -> int:
    """The hint network at its widest moment, which is at the size of the picture: what goes into a layer and what comes out, and the picture."""
    alive = 2 * network.hint_width + network.hint_channels
    pixels = height * width * HINT_PIXELS_PER_CELL**2
    return min(pictures, PICTURES_PER_PASS) * pixels * alive * network.dtype.itemsize


def graph_bytes(network: EncoderNetwork, rows: int, height: int, width: int, context: int | None) -> float:
    """A CUDA graph of a pass: what it reads and gives has places of its own, and its layers' memory stays with it."""
    read = rows * (network.latent_channels * height * width + TOKENS * (context or 0) + (network.adm_channels or 0))
    fixed = read * network.dtype.itemsize + embedding_bytes(network, rows, height, width)
    return fixed + activation_bytes(network, rows, height, width) + residual_bytes(network, rows, height, width)


def workspace_bytes(device: torch.device) -> int:
    """What cuBLAS keeps for a stream."""
    return LARGE_WORKSPACE if torch.cuda.get_device_capability(device)[0] in LARGE_WORKSPACES else WORKSPACE
