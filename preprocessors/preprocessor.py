"""What the pack knows about a preprocessor, without any node: the nodes are made from this."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .networks.network import Network
from .pixels import as_rgb

Value = bool | int | float | str


@dataclass(frozen=True)
class Parameter:
    """One setting. Its type is that of the default: a truth value gives a switch, a whole number a whole-number
    widget, a text one of `options`."""

    id: str
    default: Value
    tooltip: str
    minimum: Value | None = None
    maximum: Value | None = None
    step: Value | None = None
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Preprocessor:
    """A pure function from pictures to hints and what a person has to know to use it.

    `function(image_bhwc, resolution=..., **parameters) -> hint_bhwc` takes a batch (B, H, W, 3) float 0..1, treats each
    frame alone and returns (B, H', W', 3) float32 0..1, so any split of a batch gives the same frames.
    """

    id: str
    name: str
    function: Callable[..., Tensor]
    parameters: tuple[Parameter, ...]
    output: str
    """The convention of the hint, in words: what is white, what is black."""
    description: str
    aliases: tuple[str, ...] = ()
    annotators: tuple[str, ...] = ()
    """The ids of the networks in annotators.py that the function takes as `networks`."""
    chosen_by: str = ""
    """The parameter whose value is the id of the one network needed; empty where all of them are."""

    def needed(self, parameters: Mapping[str, Any]) -> tuple[str, ...]:
        """The ids of the networks that a call with these parameters needs."""
        if not self.chosen_by:
            return self.annotators
        defaults = {parameter.id: parameter.default for parameter in self.parameters}
        return (str(parameters.get(self.chosen_by, defaults[self.chosen_by])),)

    def __call__(
        self,
        image_bhwc: Tensor,
        resolution: int = 0,
        networks: Mapping[str, Network] | None = None,
        **parameters: Any,
    ) -> Tensor:
        """The hint of pictures, which may be gray or have an alpha channel: what is transparent is laid on white."""
        if self.annotators:
            parameters["networks"] = networks
        return self.function(as_rgb(image_bhwc), resolution=resolution, **parameters)
