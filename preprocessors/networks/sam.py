"""Segment Anything of transformers: masks at points of a picture. Kirillov et al., "Segment Anything" (ICCV 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .sight import Sight, read_sight
from .transformer import build_transformer


class SegmentAnything(nn.Module):
    """Pictures, seen once, and then masks at any points of one of them.

    Called with `picture`, standardised (B, 3, side, side), it gives features (B, C, h, w). Called with the `features` of one picture (1, C, h, w)
    and `points`, pairs of x and y in pixels of what it saw, it gives logits (points, 3, h', w'), three masks for each point, and how good it
    finds each (points, 3).
    """

    def __init__(self, network: Any, sight: Sight):
        super().__init__()
        self.network, self.sight = network, sight

    @property
    def side(self) -> int:
        """Of the square that it sees: the picture lies in its upper left corner."""
        side: int = self.network.config.vision_config.image_size
        return side

    def forward(
        self,
        picture: Tensor | None = None,
        features: Tensor | None = None,
        points: Sequence[tuple[float, float]] = (),
    ) -> Any:
        if picture is not None:
            return self.network.get_image_embeddings(picture)
        assert features is not None
        # In full precision: half would move points by up to four pixels.
        places = torch.tensor(points, dtype=torch.float32, device=features.device).reshape(1, -1, 1, 2)
        found = self.network(image_embeddings=features, input_points=places)
        return found.pred_masks[0], found.iou_scores[0]


def build_sam(folder: Path, *, dtype: torch.dtype = torch.float32) -> SegmentAnything:
    """A published folder. Raises PreprocessorError."""
    return SegmentAnything(build_transformer(folder, architecture="SamModel", dtype=dtype), read_sight(folder))
