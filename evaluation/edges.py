"""Edge fidelity: how far the edges of a picture are the edges that it was asked to have."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import EvaluationError


@dataclass(frozen=True)
class EdgeScore:
    """Per-picture scores, float32 (N,) in 0..1."""

    precision: Tensor  # the share of the picture's edge pixels that lie near a wanted one
    recall: Tensor  # the share of wanted edge pixels that the picture has nearby

    @property
    def f1(self) -> Tensor:
        """Harmonic mean of precision and recall; 0 where both are."""
        total = self.precision + self.recall
        return torch.where(
            total > 0, 2 * self.precision * self.recall / total.clamp(min=1e-12), torch.zeros_like(total)
        )


def edge_score(found: Tensor, wanted: Tensor, tolerance: float = 2.0) -> EdgeScore:
    """Compares edge maps (N, H, W), edges above 0.5; pixels match within `tolerance` pixels (Euclidean).

    Where neither has an edge the score is 1; where only one has, 0. (The matching of Martin, Fowlkes & Malik's boundary
    benchmark, PAMI 2004, without its one-to-one assignment.)
    """
    if found.shape != wanted.shape or found.ndim != 3:
        raise EvaluationError(
            f"edge_score: found maps of shape {tuple(found.shape)} and wanted ones of {tuple(wanted.shape)}, "
            "but two equal shapes (N, H, W) were expected; resize one of them first."
        )
    a, b = found > 0.5, wanted > 0.5
    return EdgeScore(precision=_share(a, grown(b, tolerance), b), recall=_share(b, grown(a, tolerance), a))


def grown(edges: Tensor, tolerance: float) -> Tensor:
    """(N, H, W) bool -> what lies within `tolerance` pixels of an edge, bool."""
    reach = int(tolerance)
    offset = torch.arange(-reach, reach + 1, device=edges.device, dtype=torch.float32)
    disc = ((offset[:, None] ** 2 + offset[None, :] ** 2) <= tolerance**2).float()
    near = torch.nn.functional.conv2d(edges[:, None].float(), disc[None, None], padding=reach)
    return near[:, 0] > 0.5


def _share(edges: Tensor, near: Tensor, other: Tensor) -> Tensor:
    total = edges.sum(dim=(1, 2)).float()
    hit = (edges & near).sum(dim=(1, 2)).float()
    neither = (total == 0) & (other.sum(dim=(1, 2)) == 0)
    return torch.where(neither, torch.ones_like(total), hit / total.clamp(min=1))
