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

ALIVE_IN_TRANSFORMER, ALIVE_IN_BLOCK = 22, 5
"""Numbers for each channel and cell of a block that are alive at its widest moment, with transformers (in their feed-forward layers) and without: counted
on the modules of SD1.5, SDXL and narrow ones by benchmarks/control_memory.py --layers. Attention has no scores there."""
ALLOWANCE = 1.15
"""For what libraries take of their own: torch's allocator gave the narrow network 8 % more than its tensors on a CPU."""
WIDTH = 320
ACTIVATION_BYTES_WITH_SCORES = 0.15 * 1024 * 1024
"""What the host counts for one latent cell of a UNet of this width, in any dtype, where attention keeps its scores (`BaseModel.memory_required`)."""
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
    """The network's layers at their peak, the residuals that are there by then among them."""
    if comfy.model_management.pytorch_attention_enabled() or comfy.model_management.xformers_enabled():
        return layer_bytes(network, rows, height, width) * ALLOWANCE
    return rows * height * width * ACTIVATION_BYTES_WITH_SCORES * network.model_channels / WIDTH


def layer_bytes(network: EncoderNetwork, rows: int, height: int, width: int) -> int:
    """The tensors of the network's layers at their peak, and of the residuals that are there by then; a UNet has the same layers and as many features."""
    net = network.module
    peak = before = 0
    for block, layers in zip(network.blocks(height, width), (*net.input_blocks, net.middle_block), strict=True):
        values = block.channels * block.height * block.width
        transformer = any(len(getattr(part, "transformer_blocks", ())) for part in layers.modules())
        peak = max(peak, before + values * (ALIVE_IN_TRANSFORMER if transformer else ALIVE_IN_BLOCK))
        before += values
    return rows * max(peak, before) * network.dtype.itemsize


def model_bytes(network: EncoderNetwork, rows: int, height: int, width: int) -> float:
    """What the model has at its peak at the least, in a step of so many rows: its encoder is that of the network, and there is more behind it."""
    return layer_bytes(network, rows, height, width) / ALLOWANCE


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
