"""ControlNeXt: one map of features, standardised to the UNet's own and added at one place (dvlab-research/ControlNeXt)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ..residuals.blocks import Block, Layout, halve
from .compatibility import unet_layout
from .errors import ControlError
from .expected import BRANCHES
from .network import adm_channels_of, context_dim_of
from .patch_network import PatchCall, Patches, PatchNetwork

if TYPE_CHECKING:
    from ..checkpoints.controlnext import ControlNeXtHyperparameters

SD2_TEXT, SDXL_POOLED = 1024, 2816
LEVELS = {"SD1": 4, "SDXL": 3}
# Behind the downsampler of the first level, where no model is known yet.
AFTER_FIRST_LEVEL = 3
TINY = 1e-12
"""The published guard against a map of one value."""


@dataclass(eq=False)
class Sampled:
    """The base and the layout of the model of the latest run."""

    base: str = ""
    layout: Layout | None = None


@dataclass(frozen=True, eq=False)
class ControlNeXtNetwork(PatchNetwork):
    """`module` is a `checkpoints.networks.controlnext.ControlNeXt`.

    The first three releases add behind the middle. That of August 2024 adds in SDXL behind the first convolution and in SD1.5 behind the whole first
    level, in both without changing what goes through the skip connection. Which of the two a file is for is in no tensor: the model decides.
    """

    @property
    def sampled(self) -> Sampled:
        """Kept with the module, because a run checks one network of those that share it."""
        found: Sampled = self.module.__dict__.setdefault("sampled", Sampled())
        return found

    @property
    def net(self) -> ControlNeXtHyperparameters:
        net: ControlNeXtHyperparameters = self.module.net
        return net

    @property
    def hint_channels(self) -> int:
        return self.net.hint_channels

    @property
    def model_base(self) -> str:
        """SD1 or SDXL: of the model that is sampled; before the first run one that the file may be for."""
        return self.sampled.base or self.bases[-1]

    @property
    def bases(self) -> tuple[str, ...]:
        """Those that it may be for: both where neither the file nor a model connected to its loader told which."""
        return tuple(base for base in self.net.bases if base in self.base.split(" or "))

    def blocks(self, height: int, width: int) -> tuple[Block, ...]:
        layout, base = self.sampled.layout, self.model_base
        if self.net.release != "August":
            level = LEVELS[base] - 1 if layout is None else layout.middle[0]
            block = ("middle", 0, level)
        elif base == "SDXL":
            block = ("input", 0, 0)
        else:
            block = ("input", AFTER_FIRST_LEVEL if layout is None else first_of_level(layout, 1), 1)
        place, index, level = block
        return (Block(place, index, level, self.net.out_channels, halve(height, level), halve(width, level), "map"),)  # type: ignore[arg-type]

    def check_model(self, model: Any) -> None:
        layout = unet_layout(model)
        base = None if layout is None else base_of(layout, model.diffusion_model)
        found = type(model.model_config).__name__
        if layout is None or base not in self.bases:
            raise ControlError(
                f"{self.name} is a ControlNeXt for {self.base}, but the model is {found}; use a ControlNeXt made for {found}, or a model of base "
                f"{self.base}."
            )
        assert base is not None, "it is one of the bases"
        self.sampled.base, self.sampled.layout = base, layout
        block = self.blocks(1, 1)[0]
        channels = layout.middle[1] if block.place == "middle" else layout.encoder[block.index][1]
        if channels != block.channels:
            raise ControlError(
                f"{self.name} is a ControlNeXt with a map of {block.channels} channels, but the model {found} has {channels} at {block.place} "
                f"{block.index}, where it is added; use a ControlNeXt made for {found}, or a model of the width that this one was made for."
            )

    def embed_hint(self, hint_bchw: Tensor) -> Tensor:
        embedding: Tensor = self.module.embed(hint_bchw)
        return embedding

    def memory_requirements(self, pictures: int, height: int, width: int, rows: int = BRANCHES) -> float:
        """The hint's embedding, and as much again three times for the largest step of the network."""
        halving = 1 if not self.net.embedding else 4 if self.net.release == "SDXL July" else 2
        cells = (height // halving) * (width // halving)
        kept = pictures * cells * self.net.inputs()[0]
        return float((kept + 3 * cells * self.net.widths[0]) * self.dtype.itemsize)

    def patches(self, call: PatchCall) -> Patches:
        if not call.acts_at(0):
            return {}
        block = call.blocks[0]
        feature_map = self.feature_map(call)
        if block.place == "middle":
            return {"middle_block_after_patch": [self._behind_the_middle(call, feature_map)]}
        return {"input_block_patch_after_skip": [self._behind_the_skip(call, block, feature_map)]}

    def feature_map(self, call: PatchCall) -> Tensor:
        """(rows or 1, channels, height, width); one row where all rows have one picture and one timestep."""
        embedding = call.embedding()
        assert isinstance(embedding, Tensor)
        times = call.pick(call.step.timesteps)
        if bool((times == times[0]).all()):
            times = times[:1]
        found: Tensor = self.module(embedding, times)
        return found

    def _behind_the_middle(self, call: PatchCall, feature_map: Tensor) -> Callable[..., Any]:
        def patch(given: Mapping[str, Any]) -> dict[str, Any]:
            return {**given, "h": self._added(call, given["h"], feature_map)}

        return patch

    def _behind_the_skip(self, call: PatchCall, block: Block, feature_map: Tensor) -> Callable[..., Any]:
        def patch(feature: Tensor, options: Mapping[str, Any]) -> Tensor:
            here = tuple(options["block"][:2]) == (block.place, block.index)
            return self._added(call, feature, feature_map) if here else feature

        return patch

    def _added(self, call: PatchCall, feature: Tensor, feature_map: Tensor) -> Tensor:
        call.check_rows(0, feature)
        pooled_last = call.blocks[0].level == 0
        change = standardised(feature_map, call.pick(feature), pooled_last)
        return call.add(0, feature, change * self.module.factor(change))


def standardised(feature_map: Tensor, feature: Tensor, pooled_last: bool) -> Tensor:
    """The map with mean and deviation of each row of `feature` and in its size, in single precision: (rows, channels, h, w).

    The published UNets pool the map to the size of the features before this, but the SDXL one of August 2024 after it.
    """
    size = (int(feature.shape[-2]), int(feature.shape[-1]))
    found = feature_map.float()
    if not pooled_last:
        found = adaptive_avg_pool2d(found, size)
    deviation, mean = torch.std_mean(feature.float(), dim=(1, 2, 3), keepdim=True)
    own_deviation, own_mean = torch.std_mean(found, dim=(1, 2, 3), keepdim=True)
    found = (found - own_mean) * (deviation / (own_deviation + TINY)) + mean
    return adaptive_avg_pool2d(found, size) if pooled_last else found


def base_of(layout: Layout, unet: Any) -> str | None:
    """Which of the bases with a published ControlNeXt a UNet is of; None for any other."""
    levels, pooled = layout.middle[0] + 1, adm_channels_of(unet)
    if levels == LEVELS["SDXL"] and pooled == SDXL_POOLED:
        return "SDXL"
    if levels == LEVELS["SD1"] and pooled is None and context_dim_of(unet) != SD2_TEXT:
        return "SD1"
    return None


def first_of_level(layout: Layout, level: int) -> int:
    """Index of the first block of the encoder that is halved so often."""
    return next(index for index, (found, _) in enumerate(layout.encoder) if found == level)
