"""Runs of Reference Control, ours and as it was published."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from control_composer.control import Control, compose_controls, layer_of
from control_composer.control.reference import ReferenceNetwork
from control_composer.tests import narrow
from control_composer.tests.control.published_reference import Published

SIZE = (2, 9, 14)
PIXELS = (72, 112)
IMAGE = narrow.picture(1, *PIXELS)
CLOSE = 1e-4
MATTERS = 1e-2


@cache
def vae() -> Any:
    from control_composer.demo.world import load_world

    return load_world().vae


@cache
def model(kind: str) -> Any:
    return narrow.make_model(kind)


def conditionings(kind: str) -> Any:
    return narrow.conditioning(kind, 10), narrow.conditioning(kind, 11)


def ours(kind: str, mode: str = "attention + adain", **settings: Any) -> Control:
    return Control.unbound(ReferenceNetwork.of(model(kind).model, mode, **settings))


def sampled(
    kind: str, mode: str, settings: dict[str, Any] | None = None, image: Tensor = IMAGE, steps: int = 3, **layer: Any
) -> Tensor:
    one = layer_of(ours(kind, mode, **settings or {}), image, vae=vae(), **layer)
    return narrow.sample(
        model(kind), *compose_controls(*conditionings(kind), [one]), SIZE, steps=steps, scheduler="karras"
    )


def published(kind: str, mode: str, fidelity: float, seed: int = 0, **settings: Any) -> Published:
    noise = torch.randn(4, *SIZE[1:], generator=torch.Generator().manual_seed(seed))[None]
    return Published(
        model(kind), kind, vae().encode(IMAGE), noise, "attention" in mode, "adain" in mode, fidelity, **settings
    )


def expected(one: Published, steps: int = 3) -> Tensor:
    """Karras: the second of three sigmas is 1.3, where both the picture and its noise matter."""
    return narrow.sample(one.sampling(), *conditionings(one.kind), SIZE, steps=steps, scheduler="karras")
