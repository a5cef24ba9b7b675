"""Layers: one condition with its settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from ..residuals.batches import BatchPolicy
from ..residuals.blocks import NOMINAL_LATENT, Block
from ..residuals.schedules import Schedule
from ..residuals.weights import BlockWeights, BlockWeightsError, Flat
from .errors import ControlError
from .foreign import ForeignControl
from .network import HINT_PIXELS_PER_CELL, EncoderNetwork, type_name
from .patch_network import PatchNetwork
from .placing import Placing
from .reuse import Reuse
from .union import UnionHint, check_union

Beside = Literal["auto", "on", "off"]
"""Whether a network may run beside the model: where it was measured to pay, wherever it can, or never."""

Source = EncoderNetwork | ForeignControl | PatchNetwork
"""What makes of a hint what is added to the UNet."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A network, a hint and how they act: everything a control needs to know of one condition.

    `hint_bchw` is (N, channels, H, W) in 0..1 at the picture's own size. `uncond_strength` multiplies the rows of the unconditional branch:
    1 treats both alike, 0 is conditional only. `mask` (N, H, W) in 0..1 covers the hint's picture, and so lies on the canvas where the hint lies.
    `overlapping` are other layers with masks: where all these masks together exceed 1 they are divided by their sum. `master` is the strength
    of the whole that the layer is part of. `union` are all hints, `hint_bchw` among them, where a union network reads several in one pass.
    `silent` is one beside others that are soloed. `beside` says whether its network may run beside the model, on a side stream (lanes.py). `node` names the node in messages. Raises ControlError for settings that cannot be meant.
    """

    source: Source
    hint_bchw: Tensor
    strength: float = 1.0
    start_percent: float = 0.0
    end_percent: float = 1.0
    uncond_strength: float = 1.0
    weights: BlockWeights = field(default_factory=Flat)
    schedule: Schedule | None = None
    mask: Tensor | None = None
    overlapping: tuple[Layer, ...] = ()
    batch: BatchPolicy = "cycle"
    placing: Placing = field(default_factory=Placing)
    enabled: bool = True
    master: float = 1.0
    extra_hooks: Any = None
    node: str = "Apply Control"
    union: tuple[UnionHint, ...] = ()
    silent: bool = False
    reuse: Reuse = field(default_factory=Reuse)
    beside: Beside = "auto"

    def __post_init__(self) -> None:
        for name, value in (
            ("strength", self.strength),
            ("uncond_strength", self.uncond_strength),
            ("the strength of the whole", self.master),
        ):
            if not math.isfinite(value):
                raise ControlError(
                    f"{name} of {self.source.name} is {value}, but a finite number was expected; type one, for example 1.0."
                )
        if not 0.0 <= self.start_percent <= self.end_percent <= 1.0:
            raise ControlError(
                f"start_percent {self.start_percent} and end_percent {self.end_percent} of {self.source.name} are no range: "
                "0 ≤ start ≤ end ≤ 1 was expected; exchange or correct the two numbers."
            )
        if not self.reuse.never and isinstance(self.source, PatchNetwork):
            raise ControlError(
                f"{self.source.name} was to be evaluated {self.reuse}, but it acts inside of the model, where nothing can be kept from step to "
                "step; set every and sigma_ratio to 1."
            )
        if not isinstance(self.source, ForeignControl):
            check_hint(self.hint_bchw, self.source.hint_channels, self.source.name, self.node)
            self.block_weights(self.source.blocks(NOMINAL_LATENT, NOMINAL_LATENT))  # refused here, not while sampling
            if self.union:
                check_union(self.union, self.source, self.node)
                for hint in self.union:
                    check_hint(
                        hint.hint_bchw,
                        self.source.hint_channels,
                        self.source.name,
                        f"{self.node} ({type_name(hint.union_type)})",
                    )
        elif self.source.reads:
            found = self.hint_bchw.shape[1] if self.hint_bchw.ndim == 4 else 0
            channels = found if found in self.source.reads else self.source.reads[-1]
            check_hint(self.hint_bchw, channels, self.source.name, self.node)

    @cached_property
    def idle(self) -> str:
        """Why the layer adds nothing at any step; empty if it may."""
        if not self.enabled:
            return "off"
        if self.silent:
            return "another layer is soloed"
        if self.strength == 0 or self.master == 0:
            return "strength 0"
        if not isinstance(self.source, ForeignControl):  # which of its weights are 0 does not depend on the size
            if not any(self.block_weights(self.source.blocks(NOMINAL_LATENT, NOMINAL_LATENT))):
                return "all block weights are 0"
        elif self.weights == Flat(0.0):
            return "all block weights are 0"
        return "the mask is empty" if self.mask is not None and not bool((self.mask > 0).any()) else ""

    @property
    def hints(self) -> tuple[Tensor, ...]:
        """The pictures of each hint, (N, channels, H, W)."""
        return tuple(hint.hint_bchw for hint in self.union) or (self.hint_bchw,)

    @cached_property
    def readings(self) -> tuple[tuple[Any, Tensor], ...]:
        """Each hint after the network as it reads it; what is read of several is added up."""
        if not self.union:
            return ((self.source, self.hint_bchw),)
        assert isinstance(self.source, EncoderNetwork)
        return tuple((hint.read_by(self.source), hint.hint_bchw) for hint in self.union)

    @property
    def told(self) -> tuple[int, ...]:
        """The types of hint that a union network is told."""
        if self.union:
            return tuple(hint.union_type for hint in self.union)
        return self.source.told if isinstance(self.source, EncoderNetwork) else ()

    @property
    def gain(self) -> float:
        """The factor of everything it adds, before its schedule; a foreign control has its strength inside already."""
        return self.master * (1.0 if isinstance(self.source, ForeignControl) else self.strength)

    def picture_strengths(self, total: int) -> tuple[float, ...]:
        """One factor for each of the batch's latents. Raises ScheduleError where the strengths do not go with the batch."""
        return (1.0,) * total if self.schedule is None else self.schedule.pictures(total)

    @property
    def by_frame(self) -> bool:
        """Whether latents of one batch may be treated differently."""
        pictures = max(*(hint.shape[0] for hint in self.hints), 1 if self.mask is None else self.mask.shape[0])
        itself = isinstance(self.source, ForeignControl) and self.source.by_frame
        return pictures > 1 or self.schedule is not None or itself

    @property
    def takes_host_hint(self) -> bool:
        """Whether hint, size and batch are as the host itself would treat them."""
        return self.placing == Placing() and self.batch == "cycle"

    def block_weights(self, blocks: Sequence[Block]) -> tuple[float, ...]:
        """The factor of each block that the source feeds, in the model's order. Raises ControlError where the weights do not go with them."""
        try:
            return self.weights(blocks)
        except BlockWeightsError as problem:
            raise ControlError(f"The weights do not go with {self.source.name}: {problem}") from None


def hint_from_image(image: object, node: str = "Apply Control") -> Tensor:
    """The host's IMAGE (N, H, W, channels) as (N, channels, H, W). Raises ControlError for anything else."""
    if not isinstance(image, Tensor) or image.ndim != 4:
        found = f"a tensor of shape {tuple(image.shape)}" if isinstance(image, Tensor) else f"{type(image).__name__}"
        raise ControlError(
            f"image of {node} is {found}, but a batch of pictures (pictures, height, width, channels) was expected; "
            "connect an IMAGE output."
        )
    if 0 in image.shape:
        raise ControlError(
            f"image of {node} is empty ({' × '.join(map(str, image.shape))}), but at least one picture was expected; "
            "check the node that makes it."
        )
    return image.movedim(-1, 1)


def check_hint(hint_bchw: Tensor, channels: int, source: str, node: str = "Apply Control") -> None:
    """Raises ControlError for a hint that the network `source` with `channels` hint channels cannot read."""
    if hint_bchw.ndim != 4:
        raise ControlError(
            f"image of {node} is a tensor of shape {tuple(hint_bchw.shape)}, but a batch of pictures was expected by {source}; "
            "connect an IMAGE output."
        )
    found, height, width = hint_bchw.shape[1:]
    if found != channels:
        to_colour = {
            4: "remove the alpha channel, for example with Split Image with Alpha",
            1: "turn it into a colour picture, for example with Convert Mask to Image",
        }
        advice = "connect the hint that this control was trained for"
        if channels == 3:
            advice = to_colour.get(found, advice)
        raise ControlError(
            f"image of {node} has {found} channel{'' if found == 1 else 's'}, but {source} reads hints of {channels}; {advice}."
        )
    if min(height, width) < HINT_PIXELS_PER_CELL:
        raise ControlError(
            f"image of {node} is {width}×{height} pixels, but a hint needs at least {HINT_PIXELS_PER_CELL}×{HINT_PIXELS_PER_CELL}, "
            "one latent cell; connect the hint at the size of the picture."
        )


def check_pixels(layer: Layer) -> Layer:
    """The layer; raises ControlError for a hint with pixels that are no numbers. Reads every pixel: for fresh layers, not for each copy of one."""
    # Picture by picture, because the answer is as large as what is asked.
    if isinstance(layer.source, ForeignControl) and not layer.source.reads:
        return layer
    if not all(bool(torch.isfinite(picture).all()) for hint in layer.hints for picture in hint):
        raise ControlError(
            f"image of {layer.node} has pixels that are NaN or infinite, but numbers from 0 to 1 were expected by {layer.source.name}; "
            "check the node that makes the picture."
        )
    return layer
