"""A place to compose in: the demo world, its controls and the host's sampler, with scenes set up by hand and a way to measure what came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..control import Control, EncoderNetwork
from ..evaluation.colour import block_colour_error
from ..evaluation.edges import edge_score
from ..nodes.load import load_source
from ..preprocessors.canny import canny
from .pairs import GRID
from .scenes import COLOURS, MOST_SHAPES, SHAPES, SIZE, Scenes, render
from .world import CONTROLS, World, load_world

CELL = 8
"""Pixels per latent cell."""
GUIDANCE = 4.0

Conditionings = tuple[list[list[Any]], list[list[Any]]]
"""positive, negative"""


@dataclass(frozen=True)
class Thing:
    """One shape of a scene: `x`, `y` and `radius` in pixels, `angle` in radians."""

    shape: str
    colour: str
    x: float = SIZE / 2
    y: float = SIZE / 2
    radius: float = 30.0
    angle: float = 0.0


def scene(ground: str, *things: Thing) -> Scenes:
    """One scene of one to three things on a flat ground, lit from the upper left."""

    def each(values: Sequence[float]) -> Tensor:
        return torch.tensor([[*values, *[0.0] * (MOST_SHAPES - len(values))]])

    colours = list(COLOURS)
    flags = torch.zeros(1, MOST_SHAPES, dtype=torch.bool)
    return Scenes(
        count=torch.tensor([len(things)]),
        shape=each([SHAPES.index(thing.shape) for thing in things]).long(),
        colour=each([colours.index(thing.colour) for thing in things]).long(),
        large=flags,
        says_size=flags,
        radius=each([thing.radius for thing in things]),
        centre=torch.stack([each([thing.x for thing in things]), each([thing.y for thing in things])], dim=-1),
        angle=each([thing.angle for thing in things]),
        light=torch.tensor([-2.4]),
        ground=torch.zeros(1, dtype=torch.long),
        ground_colour=torch.tensor([colours.index(ground)]),
        ground_angle=torch.zeros(1),
        ground_period=torch.full((1,), 30.0),
        tint=torch.zeros(1, MOST_SHAPES + 1, 3),
    )


@dataclass(frozen=True)
class Shot:
    """Pictures of scenes, (N, H, W, 3) in 0..1, and the hints made of them."""

    pictures: Tensor
    caption: str

    @classmethod
    def of(cls, *scenes: Scenes) -> Shot:
        return cls(torch.cat([render(one) for one in scenes]), scenes[0].captions()[0])

    @cached_property
    def edges(self) -> Tensor:
        return canny(self.pictures, low=100, high=200)

    @cached_property
    def colours(self) -> Tensor:
        small = torch.nn.functional.adaptive_avg_pool2d(self.pictures.movedim(-1, 1), GRID)
        size = (self.pictures.shape[1], self.pictures.shape[2])
        return torch.nn.functional.interpolate(small, size=size, mode="nearest").movedim(1, -1)


@dataclass(frozen=True)
class Studio:
    """The demo world with its two controls. `steps`: of euler at CFG 4."""

    world: World
    edges: Control
    colour: Control
    steps: int = 20
    stock_edges: Any = field(default=None)
    """The edge network as the host's own control."""

    @classmethod
    def open(cls, steps: int = 20) -> Studio:
        import comfy.controlnet

        edges, colour = (
            load_source(CONTROLS / f"control_composer_demo_{name}.safetensors", None, "auto")[0]
            for name in ("edges", "colour")
        )
        assert isinstance(edges, EncoderNetwork)
        stock = comfy.controlnet.ControlNet(edges.module, load_device=edges.patcher.load_device)
        return cls(load_world(), Control.unbound(edges), Control.unbound(colour), steps, stock)

    def words(self, positive: str, negative: str = "") -> Conditionings:
        return self.world.encode(positive), self.world.encode(negative)

    def draw(
        self,
        conditionings: Conditionings,
        count: int,
        *,
        size: tuple[int, int] = (SIZE, SIZE),
        seed: int = 1,
        one_noise: bool = False,
        model: Any = None,
    ) -> Tensor:
        """Pictures (count, height, width, 3) from the host's sampler; `one_noise` begins all with the same noise, so only the conditions differ."""
        import comfy.sample

        latent = torch.zeros(count, 4, size[0] // CELL, size[1] // CELL)
        noise = comfy.sample.prepare_noise(latent, seed, [0] * count if one_noise else None)
        sampled = comfy.sample.sample(
            self.world.model if model is None else model,
            noise,
            self.steps,
            GUIDANCE,
            "euler",
            "normal",
            *conditionings,
            latent,
            disable_pbar=True,
            seed=seed,
        )
        pictures: Tensor = self.world.vae.decode(sampled)
        return pictures.detach().clamp(0, 1).cpu().float()

    def stock(self, conditionings: Conditionings, hint: Tensor) -> Conditionings:
        """The edge hint through the host's own Apply ControlNet."""
        import nodes  # ComfyUI's

        positive, negative = nodes.ControlNetApplyAdvanced().apply_controlnet(
            *conditionings, self.stock_edges, hint, 1.0, 0.0, 1.0
        )
        return positive, negative


def follows(pictures: Tensor, hints: Tensor, where: Tensor | None = None) -> Tensor:
    """Edge F1 (N,) of each picture against its hint, or one hint for all; only in `where` (H, W) if that is given."""
    found, wanted = (canny(pictures, low=100, high=200)[..., 0], hints[..., 0].expand(len(pictures), -1, -1))
    if where is not None:
        found, wanted = found * where, wanted * where
    return edge_score(found, wanted).f1


def colour_error(pictures: Tensor, truth: Tensor) -> float:
    """Mean difference of the block means, over pictures or parts of them."""
    return float(block_colour_error(pictures, truth.expand(len(pictures), -1, -1, -1), GRID).mean())


def left_of(x: int, width: int = SIZE, height: int = SIZE) -> Tensor:
    """A mask (height, width): 1 left of x."""
    return (torch.arange(width) < x).float().expand(height, width).clone()
