"""The three networks of OpenPose: maps of a body's points and limbs, of a hand's points, of a face's points.

Cao et al., "Realtime Multi-Person 2D Pose Estimation using Part Affinity Fields" (CVPR 2017), and Simon et al., "Hand Keypoint Detection in
Single Images using Multiview Bootstrapping" (CVPR 2017): VGG's first layers, then stages that each see the features and the maps before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .weights import NOWHERE, check_weights, filled, shapes, unmarked

STRIDE = 8
"""Pixels of the picture for one of a map."""
LAST_STAGE = 6
HALVED_BEFORE = ("conv2_1", "conv3_1", "conv4_1")


class Layer(NamedTuple):
    name: str
    kernel: int
    width: int


def three_by_three(widths: Mapping[str, int]) -> tuple[Layer, ...]:
    return tuple(Layer(name, 3, width) for name, width in widths.items())


VGG = {"conv1_1": 64, "conv1_2": 64, "conv2_1": 128, "conv2_2": 128, **{f"conv3_{n}": 256 for n in range(1, 5)}}
DEEPER = {**{f"conv4_{n}": 512 for n in range(1, 5)}, "conv5_1": 512, "conv5_2": 512, "conv5_3_CPM": 128}
BODY_STAGE = (*(Layer(f"conv5_{n}_CPM", 3, 128) for n in (1, 2, 3)), Layer("conv5_4_CPM", 1, 512))
DETAIL_STAGE = (Layer("conv6_1_CPM", 1, 512),)


@dataclass(frozen=True)
class Plan:
    """The layers of a network."""

    name: str
    features: tuple[Layer, ...]
    first: tuple[Layer, ...]
    """Those of the first stage but for its last."""
    last: str
    """The last of the first stage."""
    branches: Mapping[str, int]
    """By ending of the layers' names: how many maps it makes."""
    positive: str = "none"
    """The branch whose maps have nothing below 0: a quirk of the port that all packs descend from, whose thresholds count on it."""

    def stage(self, number: int, branch: str) -> tuple[Layer, ...]:
        if number == 1:
            layers = (*self.first, Layer(self.last, 1, 0))
        else:
            layers = (
                *(Layer(f"Mconv{n}_stage{number}", 7, 128) for n in range(1, 6)),
                Layer(f"Mconv6_stage{number}", 1, 128),
                Layer(f"Mconv7_stage{number}", 1, 0),
            )
        named = [layer._replace(name=layer.name + branch) for layer in layers]
        return (*named[:-1], named[-1]._replace(width=self.branches[branch]))

    def stages(self) -> list[dict[str, tuple[Layer, ...]]]:
        return [{branch: self.stage(number, branch) for branch in self.branches} for number in range(1, LAST_STAGE + 1)]


BODY = Plan(
    "OpenPose's body network",
    three_by_three({**VGG, "conv4_1": 512, "conv4_2": 512, "conv4_3_CPM": 256, "conv4_4_CPM": 128}),
    BODY_STAGE,
    "conv5_5_CPM",
    {"_L1": 38, "_L2": 19},
    "_L2",
)
HAND = Plan("OpenPose's hand network", three_by_three({**VGG, **DEEPER}), DETAIL_STAGE, "conv6_2_CPM", {"": 22})
FACE = Plan("OpenPose's face network", three_by_three({**VGG, **DEEPER}), DETAIL_STAGE, "conv6_2_CPM", {"": 71})


class OpenPose(nn.Module):
    """RGB pictures (B, 3, H, W), 0..1, sides multiples of 8 -> for each branch of the plan its maps (B, maps, H / 8, W / 8).

    A body's are 38 of limbs (x, then y, of the direction in which a limb runs) and 19 of points, the last of the ground.
    """

    def __init__(self, plan: Plan, widths: Mapping[str, int] | None = None, operations: Any = nn, **factory: Any):
        super().__init__()
        self.plan, widths = plan, widths or {}

        def add(layers: tuple[Layer, ...], channels: int) -> int:
            for name, kernel, width in layers:
                width = widths.get(name, width)
                self.add_module(name, operations.Conv2d(channels, width, kernel, padding=kernel // 2, **factory))
                channels = width
            return channels

        features = channels = add(plan.features, 3)
        for stage in plan.stages():
            channels = features + sum([add(layers, channels) for layers in stage.values()])

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        # As Caffe had pictures: blue first, 0..255 to -0.5..0.5.
        features = x = self.run(self.plan.features, picture.flip(1) * (255 / 256) - 0.5).relu_()
        maps: list[Tensor] = []
        for stage in self.plan.stages():
            maps = [self.run(layers, x) for layers in stage.values()]
            x = torch.cat([*maps, features], 1)
        return tuple(
            found.relu() if branch == self.plan.positive else found
            for branch, found in zip(self.plan.branches, maps, strict=True)
        )

    def run(self, layers: tuple[Layer, ...], x: Tensor) -> Tensor:
        """Without the last layer's activation."""
        for position, layer in enumerate(layers):
            if position:
                x = x.relu_()
            if layer.name in HALVED_BEFORE:
                x = nn.functional.max_pool2d(x, 2)
            x = self.get_submodule(layer.name)(x)
        return x


BLOCK = re.compile(r"^model\d(_\d)?\.")
"""What the port puts before the published names in its own module; files saved from it have it."""


def build_openpose(
    weights: Mapping[str, Tensor],
    *,
    plan: Plan,
    file: str = "OpenPose",
    operations: Any = nn,
    dtype: torch.dtype = torch.float32,
) -> OpenPose:
    """The network of a published file; its widths are read from the shapes. Raises PreprocessorError."""
    weights = {BLOCK.sub("", name): tensor for name, tensor in unmarked(weights).items()}
    ends = {layers[-1].name for stage in plan.stages() for layers in stage.values()}
    hidden = chain(plan.features, *(layers for stage in plan.stages() for layers in stage.values()))
    widths = {
        layer.name: bias.shape[0]
        for layer in hidden
        if layer.name not in ends and (bias := weights.get(f"{layer.name}.bias")) is not None and bias.ndim == 1
    }
    check_weights(file, plan.name, weights, shapes(OpenPose(plan, widths, device=NOWHERE)))
    return filled(OpenPose(plan, widths, operations, device=NOWHERE, dtype=dtype), weights, dtype)


build_body = partial(build_openpose, plan=BODY)
build_hand = partial(build_openpose, plan=HAND)
build_face = partial(build_openpose, plan=FACE)
