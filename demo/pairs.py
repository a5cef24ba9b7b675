"""Training pairs of the demo world: latents with captions, edges and colour blocks, made once and kept on the device."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from ..preprocessors.canny import canny
from ..training.batch import Batch, EmptyPrompt
from .autoencoder import Autoencoder
from .scenes import SIZE, Scenes, render, sample_scenes
from .words import Words, token_batch

GRID = 8  # colour blocks in a row, as ControlNet's colour grid has of a picture of 512
_CHUNK = 32  # small enough for a processor's cache: many times faster than hundreds


@dataclass(frozen=True)
class Pairs:
    """N training examples on one device."""

    latents: Tensor  # (N, 4, 16, 16) float16
    words: Tensor  # (N, 24) int64
    edges: Tensor  # (N, 128, 128) uint8, 0 or 255
    blocks: Tensor  # (N, 3, 8, 8) float16, mean colours

    def __len__(self) -> int:
        return len(self.latents)

    def edge_hints(self, rows: Tensor) -> Tensor:
        """Edges as a hint: float32 (n, 3, 128, 128), 0 or 1."""
        return (self.edges[rows].float() / 255)[:, None].expand(-1, 3, -1, -1)

    def colour_hints(self, rows: Tensor) -> Tensor:
        """Colour blocks as a hint: float32 (n, 3, 128, 128), 0..1."""
        return torch.nn.functional.interpolate(self.blocks[rows].float(), size=(SIZE, SIZE), mode="nearest")


class PairData:
    """The pairs as the training loop reads them, with `hints(rows)` (n, 3, 128, 128) as conditions."""

    def __init__(self, pairs: Pairs, words: Words, hints: Callable[[Tensor], Tensor], count: int | None = None) -> None:
        """`count`: only so many of the first pairs."""
        self._pairs, self._words, self._hints = pairs, words, hints
        self.groups = torch.zeros(len(pairs) if count is None else count, dtype=torch.int64)
        with torch.no_grad():
            self.empty = EmptyPrompt(words(token_batch([""]).to(pairs.words.device)), None)

    def __len__(self) -> int:
        return len(self.groups)

    @torch.no_grad()
    def batch(self, rows: Tensor) -> Batch:
        rows = rows.to(self._pairs.words.device)
        return Batch(self._pairs.latents[rows], self._words(self._pairs.words[rows]), None, self._hints(rows))


def pictures(scenes: Scenes, device: torch.device) -> Tensor:
    """All scenes rendered: uint8 (N, 3, 128, 128) on the device."""
    parts = [
        (render(scenes[slice(start, start + _CHUNK)], device) * 255).round().byte().movedim(-1, 1)
        for start in range(0, len(scenes), _CHUNK)
    ]
    return torch.cat(parts)


@torch.no_grad()
def make_pairs(count: int, seed: int, autoencoder: Autoencoder, device: torch.device) -> Pairs:
    """Samples, draws, encodes and annotates `count` scenes."""
    scenes = sample_scenes(count, seed)
    latents, blocks, edges = [], [], []
    with ThreadPoolExecutor() as pool:
        for start in range(0, count, _CHUNK):
            picture = pictures(scenes[slice(start, start + _CHUNK)], device)
            edges.append(pool.submit(_edges, picture.cpu()))
            scaled = picture.float() / 255
            with torch.autocast(device.type, torch.bfloat16):
                latent = autoencoder.encode(scaled.contiguous(memory_format=torch.channels_last))
            latents.append(latent.half().contiguous())
            blocks.append(torch.nn.functional.adaptive_avg_pool2d(scaled, GRID).half().contiguous())
        return Pairs(
            latents=torch.cat(latents),
            words=token_batch(scenes.captions()).to(device),
            edges=torch.cat([part.result().to(device) for part in edges]),
            blocks=torch.cat(blocks),
        )


def _edges(picture: Tensor) -> Tensor:
    return (canny(picture.movedim(1, -1).float() / 255, low=100, high=200)[..., 0] * 255).byte()
