"""Masks of layers, on the canvas of the latent and averaged for each block; made once in a run."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..residuals.batches import BatchError, picture_of
from ..residuals.masks import mask_for, normalised
from .areas import Area
from .errors import ControlError
from .placing import place_mask
from .upload import uploaded

if TYPE_CHECKING:
    from .layer import Layer
    from .step import Step


class LayerMasks:
    """The masks of one run."""

    def __init__(self) -> None:
        self._placed: dict[Hashable, Tensor] = {}
        self._fitted: dict[Hashable, Tensor] = {}
        self._rows: dict[Hashable, Tensor] = {}

    def rows(self, layer: Layer, step: Step, rows: Sequence[int], residual: Tensor) -> Tensor:
        """Factors for a residual: one row for each of `rows`, or a single one where all have the same, broadcast over what they do not know."""
        shape = (residual.shape[1:], residual.dtype, residual.device)
        whole = (id(layer), tuple(rows), step.frames, step.total, step.areas, step.canvas, shape)
        if whole not in self._rows:
            self._rows[whole] = self._fit(layer, step, rows, residual, shape)
        return self._rows[whole]

    def _fit(self, layer: Layer, step: Step, rows: Sequence[int], residual: Tensor, shape: Hashable) -> Tensor:
        group = (layer, *layer.overlapping)
        wanted: list[Hashable] = []
        fitted: dict[Hashable, Tensor] = {}
        for row in rows:
            frame, area = step.place(row)
            pictures = tuple(mask_of(one, frame, step.total) for one in group)
            key = (id(layer), pictures, area, step.canvas, shape)
            wanted.append(key)
            if key not in self._fitted:
                parts = [
                    self._on_canvas(one, picture, step.canvas, area)
                    for one, picture in zip(group, pictures, strict=True)
                ]
                mask = normalised(parts, 0) if layer.overlapping else parts[0]
                self._fitted[key] = uploaded(mask_for(residual.shape, mask), residual.device, residual.dtype)
            fitted[key] = self._fitted[key]
        if len(fitted) == 1:
            return fitted[wanted[0]]
        return torch.cat([fitted[key] for key in wanted])

    def _on_canvas(self, layer: Layer, picture: int, canvas: tuple[int, int], area: Area | None) -> Tensor:
        """(1, 1, h, w) in latent cells: one mask of a layer, where its hint lies."""
        key = (id(layer), picture, canvas, area)
        if key not in self._placed:
            assert layer.mask is not None
            self._placed[key] = place_mask(
                layer.mask[picture : picture + 1],
                (layer.hint_bchw.shape[-2], layer.hint_bchw.shape[-1]),
                *canvas,
                layer.placing,
                area,
            )
        return self._placed[key]


def mask_of(layer: Layer, frame: int, total: int) -> int:
    """The mask for a latent."""
    assert layer.mask is not None
    try:
        return picture_of(frame, layer.mask.shape[0], total, layer.batch)
    except BatchError as problem:
        raise ControlError(f"The masks for {layer.source.name} do not go with the batch: {problem}") from None
