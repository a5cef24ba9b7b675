"""Reference control against the published formulas, through the host's sampler, and what is its own."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("comfy")

import torch
from torch import Tensor

from control_composer.control import Control, ControlError, compose_controls, layer_of
from control_composer.control.reference import MODES, ReferenceNetwork
from control_composer.tests import narrow
from control_composer.tests.control.case import made
from control_composer.tests.control.reference_runs import (
    CLOSE,
    IMAGE,
    MATTERS,
    SIZE,
    conditionings,
    expected,
    model,
    ours,
    published,
    sampled,
    vae,
)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_it_is_what_was_published(kind: str, mode: str) -> None:
    one = published(kind, mode, 0.5)
    latents = expected(one)
    assert one.written == 3
    found = sampled(kind, mode, {"style_fidelity": 0.5})
    assert narrow.relative(found, latents) <= CLOSE
    plain = narrow.sample(model(kind), *conditionings(kind), SIZE, steps=3, scheduler="karras")
    assert narrow.relative(plain, latents) > MATTERS


@pytest.mark.parametrize(
    ("fidelity", "ours_only"),
    [(0.0, {}), (1.0, {}), (1.0, {"style_fidelity": 0.0, "uncond_strength": 0.0})],
    ids=["prompt", "reference", "balance is fidelity 1"],
)
def test_style_fidelity(fidelity: float, ours_only: dict[str, float]) -> None:
    layer = {name: value for name, value in ours_only.items() if name != "style_fidelity"}
    found = sampled(
        "sd1", "attention + adain", {"style_fidelity": ours_only.get("style_fidelity", fidelity)}, steps=1, **layer
    )
    assert narrow.relative(found, expected(published("sd1", "attention + adain", fidelity), 1)) <= CLOSE


@pytest.mark.parametrize(
    ("kind", "weights"), [("sd1", (0.4, 1.0)), ("sd1", (1.0, 2.0)), ("sdxl", (0.7, 0.3)), ("sdxl", (1.0, 2.0))]
)
def test_which_places_act(kind: str, weights: tuple[float, float]) -> None:
    """The published thresholds, at less than the whole strength."""
    settings = dict(zip(("attention_weight", "adain_weight"), weights, strict=True))
    one = published(kind, "attention + adain", 0.5, strength=0.3, **settings)
    found = sampled(kind, "attention + adain", settings, steps=1, strength=0.3)
    assert narrow.relative(found, expected(one, 1)) <= CLOSE


def test_the_places_of_stable_diffusion() -> None:
    """In the order of the pass; at a weight of 1 AdaIN acts where sd-webui-controlnet's lists are below 1."""
    names = {
        kind: [block.name for block in ours(kind, "adain").source.blocks(64, 64)]  # type: ignore[union-attr]
        for kind in ("sd1", "sdxl")
    }
    assert names == {
        "sd1": [f"norm input {i}" for i in (10, 11)] + ["norm middle"] + [f"norm output {i}" for i in range(4)],
        "sdxl": ["norm input 8", "norm middle", *(f"norm output {i}" for i in range(3))],
    }
    blocks = ours("sd1", "attention").source.blocks(9, 14)  # type: ignore[union-attr]
    assert [block.name for block in blocks] == [
        *(f"attention input {i}" for i in (1, 2, 4, 5, 7, 8)),
        "attention middle",
        *(f"attention output {i}" for i in (3, 4, 5, 6, 7, 8, 9, 10, 11)),
    ]
    assert [(block.height, block.width) for block in blocks[::4]] == [(9, 14), (3, 4), (3, 4), (5, 7)]
    assert len(ours("sdxl", "attention").source.blocks(64, 64)) == 6 + 2 + 9  # type: ignore[union-attr]


def test_the_noise_is_fixed() -> None:
    """The same picture again, and another one with another seed; the published formula with the same noise."""
    first, again, other = (sampled("sd1", "attention", {"seed": seed}, steps=1) for seed in (0, 0, 7))
    assert torch.equal(first, again)
    assert narrow.relative(other, first) > CLOSE
    assert narrow.relative(other, expected(published("sd1", "attention", 0.5, seed=7), 1)) <= CLOSE


def test_without_guidance() -> None:
    """CFG 1: only the conditional branch is sampled, and style fidelity means nothing."""
    latents = [
        narrow.sample(
            model("sd1"),
            *compose_controls(
                *conditionings("sd1"),
                [layer_of(ours("sd1", "attention", style_fidelity=fidelity), IMAGE, vae=vae())],
            ),
            SIZE,
            steps=1,
            cfg=1.0,
        )
        for fidelity in (0.0, 1.0)
    ]
    assert torch.equal(*latents)
    one = published("sd1", "attention", 0.0)
    assert (
        narrow.relative(latents[0], narrow.sample(one.sampling(), *conditionings("sd1"), SIZE, steps=1, cfg=1.0))
        <= CLOSE
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    """Near what full precision gives, which is far from what no reference gives."""
    half = narrow.make_model("sd1", dtype=dtype)
    network = ReferenceNetwork.of(half.model, "attention + adain")
    one = layer_of(Control.unbound(network), IMAGE, vae=vae())
    found, plain = (
        narrow.sample(half, *conds, SIZE, steps=1)
        for conds in (compose_controls(*conditionings("sd1"), [one]), conditionings("sd1"))
    )
    full = sampled("sd1", "attention + adain", steps=1)
    assert bool(torch.isfinite(found).all())
    assert narrow.relative(found, full) < narrow.relative(plain, full) / 4


def test_an_inpaint_model() -> None:
    """As published it reads the reference as a picture in which nothing is masked."""

    class Inpaint(narrow.NarrowSD1):
        unet_config = narrow.SD1 | {"in_channels": 9}

    inpaint = made(Inpaint)
    network = ReferenceNetwork.of(inpaint.model, "attention")
    one = layer_of(Control.unbound(network), IMAGE, vae=vae())
    found = narrow.sample(inpaint, *compose_controls(*conditionings("sd1"), [one]), SIZE, steps=1)
    formula = published("sd1", "attention", 0.5)
    formula.model = inpaint
    assert narrow.relative(found, expected(formula, 1)) <= CLOSE


def refused(make: Any) -> str:
    with pytest.raises(ControlError) as problem:
        make()
    return str(problem.value)


def test_without_a_vae() -> None:
    control = ours("sd1", "adain")
    text = (
        "Reference Control (adain) reads its picture as a latent, but vae of the node that applies it is empty and the model's VAE was expected; "
        "connect the VAE to that node."
    )
    assert refused(lambda: layer_of(control, IMAGE)) == text
    assert refused(lambda: narrow.stock_apply(*conditionings("sd1"), control, IMAGE)) == text


def test_a_vae_of_another_model() -> None:
    class Wide:
        """Latents of 16 channels, as a VAE of Flux makes them."""

        def encode(self, pixels: Tensor) -> Tensor:
            return vae().encode(pixels).repeat(1, 4, 1, 1)

    one = layer_of(ours("sd1", "adain"), IMAGE, vae=Wide())
    conds = compose_controls(*conditionings("sd1"), [one])
    assert refused(lambda: narrow.sample(model("sd1"), *conds, SIZE, steps=1)) == (
        "vae of the node that applies Reference Control (adain) makes latents of 16 × 9 × 14, but 4 × 9 × 14 were expected by the model; connect the "
        "VAE of the model."
    )


def test_another_model_is_sampled() -> None:
    one = layer_of(ours("sd1", "adain"), IMAGE, vae=vae())
    conds = compose_controls(*conditionings("sdxl"), [one])
    assert refused(lambda: narrow.sample(model("sdxl"), *conds, SIZE, steps=1)) == (
        "Reference Control (adain) was made for a model of base Stable Diffusion with 16 self-attentions of up to 128 channels and 4 channels of "
        "input, but the model that is sampled is NarrowSDXL (base SDXL with 17 self-attentions of up to 128 channels and 4 channels of input); "
        "connect the model that goes to the sampler to Reference Control."
    )


def test_a_model_that_has_no_unet() -> None:
    class Flux:
        model_config = type("Flux", (), {})()
        diffusion_model = torch.nn.Linear(1, 1)

    assert refused(lambda: ReferenceNetwork.of(Flux(), "adain")) == (
        "model of Reference Control (adain) is Flux, which has no UNet, but a model of Stable Diffusion 1, 2 or XL was expected; connect such a "
        "model, and the same to the sampler."
    )


def test_a_model_that_reads_another_picture() -> None:
    class Edit(narrow.NarrowSD1):
        unet_config = narrow.SD1 | {"in_channels": 8}

    assert refused(lambda: ReferenceNetwork.of(made(Edit).model, "attention")) == (
        "model of Reference Control (attention) is Edit, whose UNet reads 8 channels, but 4 (the latent) or 9 (an inpaint model) were expected; "
        "connect another model of its base, and the same to the sampler."
    )
