"""What a control needs of the device's memory beside its weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import comfy.model_management
from torch import Tensor

from .hint import PICTURES_PER_PASS
from .network import HINT_PIXELS_PER_CELL, EncoderNetwork

BRANCHES = 2
"""The host evaluates the conditional and the unconditional branch in one batch where memory allows."""

ACTIVATION_BYTES_PER_CELL = 0.01 * 1024 * 1024
"""For each byte of the dtype: what the host counts for one latent cell of a UNet of memory_usage_factor 1 (`BaseModel.memory_required`)."""
CELLS_PER_PASS = 8 * 64 * 64
"""On a GPU a network evaluates as many rows at a time as have this many latent cells, eight at 512×512 pixels: small batches leave it idle."""
CELLS_ON_CPU = 2 * 64 * 64
"""The same on a CPU: two rows at 512×512 pixels, many of small pictures."""


def activation_bytes(conditions: Iterable[tuple[EncoderNetwork, Sequence[Tensor]]]) -> float:
    """Bytes for the residuals, embeddings and hint activations of some networks with their hints (N, C, H, W), several where a pass reads several.

    The host asks before it tells the latent's size, so the hint's own size stands for it. The layers inside a network need no room of their own
    for as many rows as the UNet has: they run before the UNet, whose estimate covers the same layers. Rows of several hints that share a network
    may run as one larger batch, and need it.
    """
    residuals = embeddings = hint = shared = 0.0
    seen: set[int] = set()
    for network, hints in conditions:
        size = comfy.model_management.dtype_size(network.dtype)
        if network.key in seen and not comfy.model_management.is_device_cpu(network.patcher.load_device):
            shared = max(shared, CELLS_PER_PASS * size * ACTIVATION_BYTES_PER_CELL)
        seen.add(network.key)
        for hint_bchw in hints:
            pictures, _, height, width = hint_bchw.shape
            blocks = network.blocks(-(-height // HINT_PIXELS_PER_CELL), -(-width // HINT_PIXELS_PER_CELL))
            one_set = sum(block.channels * block.height * block.width for block in blocks) * pictures * BRANCHES * size
            residuals = max(residuals, 2 * one_set)  # the sum so far and the set being added
            embeddings += network.model_channels * blocks[0].height * blocks[0].width * pictures * size
            alive = 2 * network.hint_width  # the widest moment of the hint network at full size, in and out
            hint = max(hint, alive * height * width * min(pictures, PICTURES_PER_PASS) * size)
    return residuals + embeddings + hint + shared
