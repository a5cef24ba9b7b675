"""A network where the host put it, as a preprocessor's function sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import PreprocessorError


@dataclass(frozen=True, eq=False)
class Network:
    """A module that computes on `device` in `dtype`; its weights may lie elsewhere, and come when they are needed."""

    module: nn.Module
    device: torch.device
    dtype: torch.dtype

    def __call__(self, *inputs: Tensor, **named: Any) -> Any:
        """What the module makes of pictures and of what goes with them, without gradients."""
        with torch.no_grad():
            return self.module(
                *(self.put(value) for value in inputs), **{name: self.put(value) for name, value in named.items()}
            )

    @property
    def settings(self) -> Any:
        """Of a network of the transformers library: its config."""
        return self.module.config

    def put(self, value: Any) -> Any:
        """A tensor where the module computes and, unless it holds whole numbers, as it computes; anything else as it is."""
        if not isinstance(value, Tensor):
            return value
        return value.to(self.device, self.dtype if value.is_floating_point() else None)


def finite(values: Tensor, network: str, what: str) -> Tensor:
    """What a network gave, in float32. Raises PreprocessorError where some are no numbers."""
    values = values.float()
    if not bool(torch.isfinite(values).all()):
        raise PreprocessorError(
            f"{network}: found {what} that are NaN or infinite, but numbers were expected; start ComfyUI with --fp32-unet, or download the "
            "network's files anew."
        )
    return values
