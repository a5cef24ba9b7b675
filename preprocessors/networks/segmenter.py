"""Networks of transformers that tell the class of every pixel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..palettes import Palette
from ..sizing import Size
from .sight import Sight, read_sight
from .transformer import CONFIG, build_transformer

TASK = (49406, 518, 10549, 533, 29119, 1550, 49407)
"""OneFormer reads its task as numbers: "the task is semantic" in the tokens of OpenAI's CLIP, from its first to its last mark."""
MASKS = 384
"""Mask2Former's masks are brought to this size before they are weighed, whatever the picture's (transformers, its processor)."""


class Segmenter(nn.Module, ABC):
    """Standardised pictures (B, 3, H, W) at `sight`'s size -> what `scores` reads.

    The classes are those of `palette`, checked when it is built.
    """

    network: Any
    antialias = False
    """How scores are resized: whether shrinking them averages."""

    def __init__(self, network: nn.Module, sight: Sight, palette: Palette):
        super().__init__()
        self.network, self.sight, self.palette = network, sight, palette

    @abstractmethod
    def forward(self, picture: Tensor) -> Any:
        """Of the whole batch."""

    @abstractmethod
    def scores(self, found: Any, frame: int, size: Size) -> Tensor:
        """(classes, h, w) float32 of one frame, at the network's own size or already at `size`; the class with the most wins."""


class PixelSegmenter(Segmenter):
    """Scores of every pixel: SegFormer, UperNet."""

    def forward(self, picture: Tensor) -> Any:
        return self.network(pixel_values=picture).logits

    def scores(self, found: Any, frame: int, size: Size) -> Tensor:
        scores: Tensor = found[frame].float()
        return scores


class MaskSegmenter(Segmenter):
    """Masks, and the classes of each: a pixel's score is the sum over its masks. Mask2Former."""

    def forward(self, picture: Tensor) -> Any:
        found = self.network(pixel_values=picture)
        return found.class_queries_logits, found.masks_queries_logits

    def scores(self, found: Any, frame: int, size: Size) -> Tensor:
        classes, masks = (part[frame].float() for part in found)
        shares = interpolate(masks[None], (MASKS, MASKS), mode="bilinear", align_corners=False).sigmoid()
        if size.height * size.width < MASKS * MASKS:
            # Resizing and weighing can change places; there are fewer masks than classes.
            shares = interpolate(shares, tuple(size), mode="bilinear", align_corners=False)
        return weighed(classes, shares[0])


class TaskSegmenter(Segmenter):
    """Masks and classes by a network that is told what they are for: OneFormer."""

    antialias = True

    def forward(self, picture: Tensor) -> Any:
        task = torch.zeros(picture.shape[0], self.network.config.task_seq_len, dtype=torch.int64, device=picture.device)
        task[:, : len(TASK)] = torch.tensor(TASK)
        found = self.network(pixel_values=picture, task_inputs=task)
        return found.class_queries_logits, found.masks_queries_logits

    def scores(self, found: Any, frame: int, size: Size) -> Tensor:
        classes, masks = (part[frame].float() for part in found)
        return weighed(classes, masks.sigmoid())


def weighed(classes: Tensor, shares: Tensor) -> Tensor:
    """Logits (queries, classes + 1), the last of them "nothing", and shares of each pixel in 0..1 (queries, h, w) -> (classes, h, w)."""
    return torch.einsum("qc,qhw->chw", classes.softmax(-1)[:, :-1], shares)


def build_segmenter(
    folder: Path,
    *,
    architecture: str,
    kind: type[Segmenter],
    palette: Palette,
    divisor: int = 1,
    dtype: torch.dtype = torch.float32,
) -> Segmenter:
    """A published folder as a Segmenter. Raises PreprocessorError, also where its classes are not the palette's."""
    network: Any = build_transformer(folder, architecture=architecture, dtype=dtype)
    palette.check(network.config.id2label, f"{folder.name}/{CONFIG}")
    return kind(network, read_sight(folder, divisor), palette)
