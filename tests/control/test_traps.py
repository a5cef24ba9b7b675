"""What goes wrong without a word elsewhere: text that stands in for a control's, hints below zero, hints of more channels than three."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("comfy")

import torch
from torch import Tensor

from control_composer.control import Control, ControlError, compose_controls, layer_of
from control_composer.control.placing import FILLS, SIZINGS, Placing, place_hint
from control_composer.nodes.load import load_source
from control_composer.tests import narrow
from control_composer.tests.control.case import IMAGE, SIZE, Case, save
from control_composer.tests.control.cases import CASES


def plain(kind: str) -> Callable[[Path], Case]:
    def make(folder: Path) -> Case:
        module = narrow.make_module(kind)
        return Case(kind, narrow.make_model(kind), narrow.make_ours(module, kind), narrow.make_stock(module), "")

    return make


READS_TEXT = {
    "SD1": plain("sd1"),
    "SDXL": plain("sdxl"),
    **{name: CASES[name] for name in ("Union", "Control-LoRA", "Control-LoRA XL", "difference", "CtrLoRA", "T2I-Adapter")},
}  # fmt: skip


def with_own_text(conditioning: Any, seed: int, tokens: int) -> Any:
    """As InstantID's nodes and the host's CLIPTextEncodeControlnet give a control its own text."""
    generator = torch.Generator().manual_seed(seed)
    return [
        [text, values | {"cross_attn_controlnet": torch.randn(1, tokens, text.shape[-1], generator=generator)}]
        for text, values in conditioning
    ]


@pytest.mark.parametrize("name", READS_TEXT)
def test_the_controls_own_text(name: str, tmp_path: Path) -> None:
    """Used in place of the prompt, by each branch its own and of another length, as by the stock node's control."""
    case = READS_TEXT[name](tmp_path)
    positive, negative = case.start()
    start = with_own_text(positive, 20, 4), with_own_text(negative, 21, 5)
    layers = [layer_of(case.ours, IMAGE, 0.8, **case.settings)]
    found, without = (
        narrow.sample(case.model, *compose_controls(*conds, layers), SIZE, steps=2) for conds in (start, case.start())
    )
    if case.stock is not None:
        expected = narrow.sample(case.model, *narrow.stock_apply(*start, case.stock, IMAGE, 0.8), SIZE, steps=2)
        assert narrow.relative(found, expected) <= 1e-5
    reads = name != "T2I-Adapter"  # which reads no text
    assert (narrow.relative(found, without) > 1e-3) == reads


def inpaint_hint(height: int = 80, width: int = 136, channels: int = 3) -> Tensor:
    """A picture whose masked pixels are −1, as the inpaint preprocessor makes it."""
    picture = narrow.picture(2, height, width, channels=channels)
    picture[:, 16:48, 24:72] = -1.0
    return picture


@pytest.mark.parametrize("name", ["SD1", "SDXL", "Control-LoRA", "T2I-Adapter"])
def test_pixels_of_minus_one_reach_the_network(name: str, tmp_path: Path) -> None:
    case = READS_TEXT[name](tmp_path)
    image = inpaint_hint()
    expected = narrow.stock_apply(*case.start(), case.stock, image, 0.7)
    composed = compose_controls(*case.start(), [layer_of(case.ours, image, 0.7)])
    clamped = compose_controls(*case.start(), [layer_of(case.ours, image.clamp(0, 1), 0.7)])
    found, expected, other = (
        narrow.sample(case.model, *conds, SIZE, steps=2) for conds in (composed, expected, clamped)
    )
    assert narrow.relative(found, expected) <= 1e-5
    assert narrow.relative(found, other) > 1e-3


@pytest.mark.parametrize("sizing", SIZINGS)
@pytest.mark.parametrize("fill", FILLS)
def test_no_placing_changes_values(sizing: Any, fill: Any) -> None:
    hint = inpaint_hint().movedim(-1, 1)
    placed = place_hint(hint, 24, 16, Placing(sizing, fill), pixels_per_cell=8)
    assert float(placed.min()) == -1.0
    filler = {"black": [0.0], "white": [1.0], "edge": []}[fill] if sizing == "fit" else []
    assert set(placed.unique().tolist()) <= {*hint.unique().tolist(), *filler}


def test_what_the_hint_network_is_given(tmp_path: Path) -> None:
    """The very pixels, in a batch, with a fit's fill around them."""
    case = plain("sd1")(tmp_path)
    seen: list[Tensor] = []
    hook = case.ours.network.module.input_hint_block.register_forward_pre_hook(
        lambda _, given: seen.append(given[0].clone())
    )
    layer = layer_of(case.ours, inpaint_hint(64, 64), sizing="fit", fill="white")
    narrow.sample(case.model, *compose_controls(*case.start(), [layer]), SIZE, steps=1)
    hook.remove()
    pixels = torch.cat(seen)
    assert torch.equal(pixels[:, :, :, 32:96], layer.hint_bchw)
    assert (float(pixels.min()), float(pixels[..., :32].min())) == (-1.0, 1.0)


@pytest.mark.parametrize("channels", [1, 4, 6, 9])
def test_hints_of_other_widths(channels: int, tmp_path: Path) -> None:
    """Inpainting with a mask as fourth channel, two pictures one behind the other, nine channels: from the file to the latents."""
    module = narrow.make_module("sd1", hint_channels=channels)
    path = save(tmp_path, dict(module.state_dict()), "wide.safetensors", {"num_heads": "4"})
    source, description = load_source(path, None, "auto")
    assert f"\nhint: {channels} channel" in description
    case = Case("sd1", narrow.make_model("sd1"), Control.unbound(source), narrow.make_stock(module), description)
    image = inpaint_hint(channels=channels)
    composed = compose_controls(*case.start(), [layer_of(case.ours, image, 0.7)])
    expected = narrow.stock_apply(*case.start(), case.stock, image, 0.7)
    found, expected = (narrow.sample(case.model, *conds, SIZE, steps=2) for conds in (composed, expected))
    assert narrow.relative(found, expected) <= 1e-5
    for other in {1, 3, 4} - {channels}:
        # Neither gray made colour nor alpha removed would be of that many channels.
        with pytest.raises(
            ValueError, match=f"reads hints of {channels}; connect the hint that this control was trained"
        ):
            layer_of(case.ours, narrow.picture(1, 64, 64, channels=other))


def test_a_control_that_reads_more_than_latents(tmp_path: Path) -> None:
    """Made from an inpaint model's encoder: what such a model has beside its latents never reaches a control."""
    module = narrow.make_module("sd1", in_channels=9)
    path = save(tmp_path, dict(module.state_dict()), "nine.safetensors", {"num_heads": "4"})
    source, _ = load_source(path, None, "auto")
    case = Case("sd1", narrow.make_model("sd1"), Control.unbound(source), narrow.make_stock(module), "")
    conds = compose_controls(*case.start(), [layer_of(case.ours, IMAGE)])
    with pytest.raises(ControlError) as caught:
        narrow.sample(case.model, *conds, SIZE, steps=1)
    assert str(caught.value) == (
        "nine.safetensors reads latents of 9 channels, but those of the model have 4, and a control sees nothing that an inpaint model has beside "
        "them; use a control made for latents of 4 channels."
    )
