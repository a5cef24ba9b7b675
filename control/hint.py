"""Hint embeddings: made once for every picture, place and network."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from .areas import Area
from .network import EncoderNetwork
from .patch_network import PatchNetwork
from .placing import Placing, place_hint
from .upload import uploaded

Embedding = Tensor | tuple[Tensor, ...]
"""What a network makes of hints, apart from the timestep: one tensor or several, each with a row for every picture."""

PICTURES_PER_PASS = 4
"""Pictures embedded at a time: the first convolutions run at pixel size and would fill the memory with a long batch."""


def picture_key(picture: Tensor) -> Hashable:
    """Equal for views of the same pixels. Valid as long as the picture is alive."""
    storage = picture.untyped_storage().data_ptr()
    return (picture.device, storage, picture.storage_offset(), tuple(picture.shape), picture.stride(), picture.dtype)


class HintEmbeddings:
    """The hint embeddings of one run, one for each picture in each place."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, Embedding] = {}
        self._told = 0

    def new_bytes(self) -> int:
        """Size of the embeddings made since the last question."""
        size = sum(tensor.nbytes for embedding in self._kept.values() for tensor in tensors_of(embedding))
        grown, self._told = size - self._told, size
        return grown

    def get(
        self,
        network: EncoderNetwork | PatchNetwork,
        hint_bchw: Tensor,
        placing: Placing,
        wanted: Sequence[tuple[int, Area | None]],
        canvas: tuple[int, int],
        device: torch.device,
    ) -> Embedding:
        """A row for each of `wanted`, pictures in areas of the canvas; a single row where all `wanted` are one."""
        same = (network.embedding_key, picture_key(hint_bchw), placing, canvas, device)
        missing: dict[Area | None, list[int]] = {}
        for picture, area in dict.fromkeys(wanted):
            if (same, picture, area) not in self._kept:
                missing.setdefault(area, []).append(picture)
        for area, pictures in missing.items():
            for start in range(0, len(pictures), PICTURES_PER_PASS):
                some = pictures[start : start + PICTURES_PER_PASS]
                together = some[-1] - some[0] + 1 == len(some)  # a view where that is possible: pictures may be large
                chosen = hint_bchw[some[0] : some[-1] + 1] if together else hint_bchw[some]
                placed = place_hint(chosen, *canvas, placing, area, network.pixels_per_cell, network.smooth)
                embedded = network.embed_hint(uploaded(placed, device, network.dtype))
                self._kept.update(
                    {(same, picture, area): row for picture, row in zip(some, rows_of(embedded), strict=True)}
                )
        rows = [self._kept[same, picture, area] for picture, area in wanted]
        return rows[0] if len(set(wanted)) == 1 else joined(rows)


def tensors_of(embedding: Embedding) -> tuple[Tensor, ...]:
    return (embedding,) if isinstance(embedding, Tensor) else embedding


def rows_of(embedding: Embedding) -> list[Embedding]:
    """One embedding for each picture."""
    if isinstance(embedding, Tensor):
        return list(embedding.split(1))
    return list(zip(*(tensor.split(1) for tensor in embedding), strict=True))


def joined(embeddings: Sequence[Embedding]) -> Embedding:
    """The rows of several embeddings of one network, one below the other."""
    if isinstance(embeddings[0], Tensor):
        return torch.cat([tensor for embedding in embeddings for tensor in tensors_of(embedding)])
    return tuple(torch.cat(tensors) for tensors in zip(*map(tensors_of, embeddings), strict=True))
