"""Reference control against the published formulas, through the host's sampler, and what is its own."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

pytest.importorskip("comfy")

import comfy.utils
import torch
from torch import Tensor

from control_composer.control import Control, ControlError, compose_controls, layer_of
from control_composer.control.reference import MODES, ReferenceNetwork
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
    kind: str, mode: str, settings: dict[str, Any] | None = None, image: Tensor = IMAGE, steps: int = 2, **layer: Any
) -> Tensor:
    one = layer_of(ours(kind, mode, **settings or {}), image, vae=vae(), **layer)
    return narrow.sample(model(kind), *compose_controls(*conditionings(kind), [one]), SIZE, steps=steps)


def published(kind: str, mode: str, fidelity: float, seed: int = 0, **settings: Any) -> Published:
    noise = torch.randn(4, *SIZE[1:], generator=torch.Generator().manual_seed(seed))[None]
    return Published(
        model(kind), kind, vae().encode(IMAGE), noise, "attention" in mode, "adain" in mode, fidelity, **settings
    )


def expected(one: Published, steps: int = 2) -> Tensor:
    return narrow.sample(one.sampling(), *conditionings(one.kind), SIZE, steps=steps)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_it_is_what_was_published(kind: str, mode: str) -> None:
    one = published(kind, mode, 0.5)
    latents = expected(one)
    assert one.written == 2
    found = sampled(kind, mode, {"style_fidelity": 0.5})
    assert narrow.relative(found, latents) <= CLOSE
    plain = narrow.sample(model(kind), *conditionings(kind), SIZE, steps=2)
    assert narrow.relative(plain, latents) > MATTERS
