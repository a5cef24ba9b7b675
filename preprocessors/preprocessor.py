"""What the pack knows about a preprocessor, without any node: the nodes are made from this."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from .networks.network import Network
from .pixels import as_rgb
from .sizing import Size, size_at
from .through import padded_size

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
    frame alone and returns (B, H', W', 3) float32 0..1 on the image's device, so any split of a batch gives the same frames.
    """

    id: str
    name: str
    function: Callable[..., Any]
    parameters: tuple[Parameter, ...]
    output: str
    """The convention of the hint, in words: what is white, what is black."""
    description: str
    aliases: tuple[str, ...] = ()
    annotators: tuple[str, ...] = ()
    """The ids of the networks in annotators/ that the function takes as `networks`."""
    chosen_by: str | tuple[str, ...] = ()
    """The parameters whose values are the ids of the networks needed; none where all of `annotators` are."""
    switches: Mapping[str, str] = field(default_factory=dict, hash=False)
    """By id of a network: the truth-value parameter without which it is not needed."""
    data: Literal["", "pose"] = ""
    """What the function returns beside the hint, as a list with one of them for each frame."""
    looks_at: Callable[[Size, Mapping[str, Any]], Size] | None = None
    """How large a network sees a picture of this size with these parameters; None: with its sides at multiples of 64."""
    values_per_pixel: int = 64
    """How many numbers for each pixel are in memory at once on an accelerator, beside those of networks."""
    together: tuple[str, Value] | None = None
    """A parameter and its value at which the function looks at all frames at once, so that a batch must not be split."""

    def with_defaults(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return {parameter.id: parameter.default for parameter in self.parameters} | dict(parameters)

    def needs_all(self, parameters: Mapping[str, Any]) -> bool:
        """Whether a batch must not be split with these parameters."""
        return self.together is not None and self.with_defaults(parameters)[self.together[0]] == self.together[1]

    def needed(self, parameters: Mapping[str, Any]) -> tuple[str, ...]:
        """The ids of the networks that a call with these parameters needs."""
        values = self.with_defaults(parameters)
        choices = (self.chosen_by,) if isinstance(self.chosen_by, str) else self.chosen_by
        chosen = [values[choice] for choice in choices]
        return tuple(
            identifier
            for identifier in self.annotators
            if (not choices or identifier in chosen or identifier in self.switches)
            and (identifier not in self.switches or values[self.switches[identifier]])
        )

    def network_size(self, size: Size, resolution: int, parameters: Mapping[str, Any]) -> Size:
        """How large the networks see a picture of this size."""
        if self.looks_at is None:
            return padded_size(size, resolution)
        return self.looks_at(size_at(size, resolution), self.with_defaults(parameters))

    def with_data(
        self,
        image_bhwc: Tensor,
        resolution: int = 0,
        networks: Mapping[str, Network] | None = None,
        **parameters: Any,
    ) -> tuple[Tensor, list[Any]]:
        """The hint of pictures, which may be gray or have an alpha channel: what is transparent is laid on white. And one datum for each
        frame; none where this preprocessor has no data.
        """
        if self.annotators:
            parameters["networks"] = networks
        found = self.function(as_rgb(image_bhwc), resolution=resolution, **parameters)
        return found if self.data else (found, [])

    def __call__(
        self,
        image_bhwc: Tensor,
        resolution: int = 0,
        networks: Mapping[str, Network] | None = None,
        **parameters: Any,
    ) -> Tensor:
        """The hint alone, as `with_data` gives it."""
        return self.with_data(image_bhwc, resolution, networks, **parameters)[0]
