"""Hints: sized to the latent and embedded once for every picture, size and network."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import comfy.utils
import torch
from torch import Tensor

from .network import HINT_PIXELS_PER_CELL, EncoderNetwork

PICTURES_PER_PASS = 4
"""Pictures embedded at a time: the first convolutions run at pixel size and would fill the memory with a long batch."""


def size_hint(hint_bchw: Tensor, height: int, width: int) -> Tensor:
    """The hint for a latent of `height` × `width` cells, cropped to its aspect around the centre, nearest pixel: as the stock nodes do."""
    pixels = HINT_PIXELS_PER_CELL
    sized: Tensor = comfy.utils.common_upscale(hint_bchw, width * pixels, height * pixels, "nearest-exact", "center")
    return sized


def picture_key(picture: Tensor) -> Hashable:
    """Equal for views of the same pixels. Valid as long as the picture is alive."""
    storage = picture.untyped_storage().data_ptr()
    return (picture.device, storage, picture.storage_offset(), tuple(picture.shape), picture.stride(), picture.dtype)


def picture_rows(rows: Sequence[int], per_chunk: int, pictures: int) -> list[int]:
    """The picture that steers each row of a batch of chunks of `per_chunk` latents; a short batch of pictures starts over, as in the host."""
    return [row % per_chunk % pictures for row in rows]


class HintEmbeddings:
    """The hint embeddings of one run."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, Tensor] = {}

    def get(
        self, network: EncoderNetwork, hint_bchw: Tensor, height: int, width: int, pictures: int, device: torch.device
    ) -> Tensor:
        """Embedding (pictures, model channels, height, width) of the first `pictures` hints on `device`."""
        key = (network.key, picture_key(hint_bchw), height, width, pictures, device)
        if key not in self._kept:
            passes = [
                network.embed_hint(size_hint(part, height, width).to(device=device, dtype=network.dtype))
                for part in hint_bchw[:pictures].split(PICTURES_PER_PASS)
            ]
            self._kept[key] = passes[0] if len(passes) == 1 else torch.cat(passes)
        return self._kept[key]
