"""What several resolutions say of edges, as one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def mean_logit(logits: Sequence[Tensor], size: torch.Size) -> Tensor:
    """The mean of maps (B, 1, h, w), each enlarged to `size` bilinearly, in float32."""
    total = torch.zeros(1, device=logits[0].device)
    for found in logits:
        total = total + interpolate(found.float(), tuple(size), mode="bilinear", align_corners=False)
    return total / len(logits)
