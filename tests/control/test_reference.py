"""Reference control against the published formulas, through the host's sampler, and what is its own."""

from __future__ import annotations

import gc
from functools import cache
from typing import Any, ClassVar

import pytest

pytest.importorskip("comfy")

import comfy.patcher_extension
import torch
from torch import Tensor

from control_composer.control import Control, ControlError, compose_controls, layer_of
from control_composer.control.patch_network import PatchCall, PatchNetwork
from control_composer.control.reference import MODES, ReferenceNetwork
from control_composer.control.reference_pass import Bank
from control_composer.residuals.blocks import Block
from control_composer.tests import narrow
from control_composer.tests.control.case import made
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


def test_other_controls_steer_only_the_result() -> None:
    """The reference's own pass sees no residuals and no patches of other layers, before it and after it."""
    kind = "sd1"
    network = narrow.make_ours(narrow.make_module(kind), "SD1")
    before, after = (layer_of(network, IMAGE, strength) for strength in (0.6, 0.3))
    reference = layer_of(ours(kind, "attention"), IMAGE, vae=vae())
    found = narrow.sample(
        model(kind), *compose_controls(*conditionings(kind), [before, reference, after]), SIZE, steps=1
    )
    one = published(kind, "attention", 0.5)
    conds = compose_controls(*conditionings(kind), [before, after])
    assert narrow.relative(found, narrow.sample(one.sampling(), *conds, SIZE, steps=1)) <= CLOSE


class Counting(PatchNetwork):
    """A layer that acts inside of the model too, and counts how often."""

    calls: ClassVar[list[int]] = []
    hint_channels = 3
    dtype = torch.float32

    def blocks(self, height: int, width: int) -> tuple[Block, ...]:
        return (Block("middle", 0, 3, 128, height, width, "counting"),)

    def check_model(self, model: Any) -> None:
        pass

    def embed_hint(self, hint_bchw: Tensor) -> Tensor:
        return hint_bchw

    def patches(self, call: PatchCall) -> Any:
        def count(h: Tensor, options: Any) -> Tensor:
            self.calls.append(len(h))
            return h

        return {"input_block_patch": [count]}


def test_layers_inside_of_the_model_do_not_act_on_the_reference() -> None:
    network = Counting(None, None, "counting", "SD1")
    counting = layer_of(Control.unbound(network), IMAGE)
    reference = layer_of(ours("sd1", "adain"), IMAGE, vae=vae())
    conds = compose_controls(*conditionings("sd1"), [counting, reference, counting])
    narrow.sample(model("sd1"), *conds, SIZE, steps=1)
    assert network.calls == [4] * 12 * 2  # input blocks, for each of the two layers


class Doubled:
    """Another node's patches of self-attention: its output counts twice, and its keys are turned around."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def attn1(self, n: Tensor, context: Tensor, value: Tensor, options: Any) -> tuple[Tensor, ...]:
        self.calls.append(len(n))
        return n, -context, value

    def output(self, n: Tensor, options: Any) -> Tensor:
        return 2 * n

    def on(self, patcher: Any) -> Any:
        patched = patcher.clone()
        patched.set_model_attn1_patch(self.attn1)
        patched.set_model_attn1_output_patch(self.output)
        return patched


def unet_call(patcher: Any, conds: Any) -> Tensor:
    return narrow.sample(patcher, *conds, SIZE, steps=1)


def test_the_patches_of_other_nodes_keep_their_effect() -> None:
    """The reference's change is added to what they make of a self-attention, and they work in its own pass too."""
    kind, other = "sd1", Doubled()
    patched = other.on(model(kind))
    one = layer_of(ours(kind, "attention", attention_weight=0.01), IMAGE, vae=vae())
    found = unet_call(patched, compose_controls(*conditionings(kind), [one]))
    assert other.calls == [4] * 32  # twice 16 self-attentions, for two latents in two branches

    formula = published(kind, "attention", 0.5, attention_weight=0.01)
    # The widest self-attention that comes first is the only one that acts.
    unet = model(kind).model.diffusion_model
    block = next(
        b for b in unet.modules() if type(b).__name__ == "BasicTransformerBlock" and b.norm1.normalized_shape[0] == 128
    )
    kept: dict[str, Tensor] = {}

    def forward(x: Tensor, context: Any = None, value: Any = None, **options: Any) -> Tensor:
        theirs = original(x, context=context, value=value, **options)
        if formula.writing:
            kept["bank"] = x.clone()
            return theirs
        change = original(x, context=torch.cat([x, kept["bank"]], dim=1), **options) - original(x, **options)
        change[formula.uncond] = 0.5 * change[formula.uncond]
        return theirs + change / 2  # which the other node's patch doubles

    original = block.attn1.forward
    formula.attention = False
    formula.model = patched
    formula.hook = lambda unet: None  # type: ignore[method-assign]
    block.attn1.forward = forward
    try:
        latents = unet_call(formula.sampling(), conditionings(kind))
    finally:
        del block.attn1.forward
    assert narrow.relative(found, latents) <= CLOSE


def test_tiled_self_attention() -> None:
    """The host's HyperTile cuts self-attention into tiles around the reference, whose own attention sees the whole picture."""
    import comfy_extras.nodes_hypertile as hypertile

    (tiled,) = hypertile.HyperTile.execute(model("sd1"), 32, 1, 0, False)
    one = layer_of(ours("sd1", "attention"), narrow.picture(1, 128, 128), vae=vae())
    plain, found = (
        narrow.sample(tiled, *conds, (1, 16, 16), steps=1)
        for conds in (conditionings("sd1"), compose_controls(*conditionings("sd1"), [one]))
    )
    untiled = narrow.sample(model("sd1"), *conditionings("sd1"), (1, 16, 16), steps=1)
    assert narrow.relative(plain, untiled) > CLOSE  # it does tile
    assert narrow.relative(found, plain) > MATTERS


def test_wrappers_see_only_the_result() -> None:
    """Nodes that cache the model's output between steps wrap it; they must not take the reference's pass for a step."""
    seen: list[Any] = []

    def wrapper(executor: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(len(args[0]))
        return executor(*args, **kwargs)

    watched = model("sd1").clone()
    watched.add_wrapper(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, wrapper)
    watched.add_wrapper(comfy.patcher_extension.WrappersMP.APPLY_MODEL, wrapper)
    one = layer_of(ours("sd1", "adain"), IMAGE, vae=vae())
    narrow.sample(watched, *compose_controls(*conditionings("sd1"), [one]), SIZE, steps=1)
    assert seen == [4, 4]


@pytest.mark.parametrize("uncond_strength", [1.0, 0.0])
def test_what_it_costs(monkeypatch: pytest.MonkeyPatch, uncond_strength: float) -> None:
    """One encoding in a run, one more pass in a step, of the rows that it steers, and nothing is kept afterwards."""
    encoded, rows = [], []
    encode, unet = vae().encode, model("sd1").model.diffusion_model
    monkeypatch.setattr(vae(), "encode", lambda pixels: encoded.append(tuple(pixels.shape)) or encode(pixels))
    handle = unet.time_embed.register_forward_hook(lambda module, inputs, out: rows.append(len(out)))
    one = layer_of(ours("sd1", "attention"), IMAGE, vae=vae(), uncond_strength=uncond_strength)
    conds = compose_controls(*conditionings("sd1"), [one])
    try:
        narrow.sample(model("sd1"), *conds, SIZE, steps=2)
    finally:
        handle.remove()
    assert encoded == [(1, *PIXELS, 3)]
    assert rows == [4 if uncond_strength else 2, 4] * 2
    gc.collect()
    assert not [kept for kept in gc.get_objects() if type(kept) is Bank]


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
