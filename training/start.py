"""How the layers that a control has beside the copied ones begin."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import nn

Start = Literal["zero", "gaussian"]


@torch.no_grad()
def start_layers(hint_layers: Sequence[nn.Conv2d], tied: Iterable[nn.Conv2d], start: Start, seed: int) -> None:
    """Fills the hint network E and the convolutions that tie the control to the base.

    E begins as layers before a SiLU do (He et al., arXiv 1502.01852); its last layer is the zero convolution of the input (Z(c; Θz1)).
    "zero": those that tie are zero. "gaussian", for the ablation: normal, with the variance that keeps the variance of their input.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in hint_layers[:-1]:
        _normal(layer, 2.0, generator)
    for layer in (hint_layers[-1], *tied):
        _normal(layer, 1.0 if start == "gaussian" else 0.0, generator)


def _normal(layer: nn.Conv2d, gain: float, generator: torch.Generator) -> None:
    fan_in = layer.weight[0].numel()
    # Made on the CPU: the same numbers wherever the layer is.
    values = torch.randn(layer.weight.shape, generator=generator) * (gain / fan_in) ** 0.5
    layer.weight.copy_(values)
    if layer.bias is not None:
        layer.bias.zero_()
