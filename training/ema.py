"""The moving average of the trained weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """Moving average of all parameters of a module. With `keep` 0 it is the parameters themselves and takes no memory."""

    def __init__(self, module: nn.Module, keep: float) -> None:
        self.keep = keep
        self._parameters = dict(module.named_parameters())
        self._values = {
            name: parameter.detach().clone() if keep else parameter.detach()
            for name, parameter in self._parameters.items()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After step number `step`; the first steps count more, or the start would stay in the average for long."""
        if not self.keep:
            return
        keep = min(self.keep, (1 + step) / (10 + step))
        live = [parameter.detach() for parameter in self._parameters.values()]
        torch._foreach_lerp_(list(self._values.values()), live, 1 - keep)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """While it lasts the module's weights are the average."""
        if not self.keep:
            yield
            return
        live = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        self._assign(self._values)
        try:
            yield
        finally:
            self._assign(live)

    def state(self) -> dict[str, Tensor]:
        """Name -> value; the tensors go on changing."""
        return dict(self._values)

    @torch.no_grad()
    def load(self, values: dict[str, Tensor]) -> None:
        for name, value in self._values.items():
            value.copy_(values[name])

    @torch.no_grad()
    def _assign(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(values[name])
