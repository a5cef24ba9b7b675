"""Random rows for the loop, held in memory."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from control_composer.training.batch import Batch, EmptyPrompt


class Rows:
    """Latents of `sizes[group]` cells; the hint of a row tells its latent, so that there is something to learn."""

    def __init__(self, rows: int, width: int, sizes: tuple[int, ...] = (8,), pooled: int = 0, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.groups = torch.arange(rows) % len(sizes)
        self.empty = EmptyPrompt(torch.zeros(1, 3, width), torch.zeros(1, pooled - 2) if pooled else None)
        self._rows = []
        for group in self.groups.tolist():
            latent = torch.randn(1, 4, sizes[group], sizes[group], generator=generator)
            shown = latent[:, :3].repeat_interleave(8, 2).repeat_interleave(8, 3)
            hint = ((shown.clamp(-2, 2) + 2) * 63).byte()
            context = torch.randn(1, 3, width, generator=generator)
            y = torch.randn(1, pooled, generator=generator) if pooled else None
            self._rows.append(Batch(latent, context, y, hint))

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, rows: Tensor) -> Batch:
        assert rows.ndim == 1 and len(rows)
        own = [self._rows[row] for row in rows.tolist()]
        y = None if own[0].y is None else torch.cat([row.y for row in own])
        latent, context, hint = (
            torch.cat([getattr(row, name) for row in own]) for name in ("latent", "context", "hint")
        )
        return replace(own[0], latent=latent, context=context, y=y, hint=hint)
