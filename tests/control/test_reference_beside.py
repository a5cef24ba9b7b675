"""Reference Control beside other controls, other nodes' patches and wrappers, and what it costs."""

from __future__ import annotations

import gc
from typing import Any, ClassVar

import pytest

pytest.importorskip("comfy")

import comfy.patcher_extension
import torch
from torch import Tensor

from control_composer.control import Control, compose_controls, layer_of
from control_composer.control.patch_network import PatchCall, PatchNetwork
from control_composer.control.reference_pass import Bank
from control_composer.residuals.blocks import Block
from control_composer.tests import narrow
from control_composer.tests.control.reference_runs import (
    CLOSE,
    IMAGE,
    MATTERS,
    PIXELS,
    SIZE,
    conditionings,
    model,
    ours,
    published,
    vae,
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
