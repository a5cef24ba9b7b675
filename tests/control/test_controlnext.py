"""ControlNeXt inside of the host's UNet, against the published arithmetic written anew around the repository's network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("comfy")
pytest.importorskip("diffusers")

from comfy.ldm.modules.diffusionmodules.openaimodel import forward_timestep_embed
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from torch import Tensor

from control_composer.control import Control, ControlError, compose_controls, layer_of
from control_composer.control.controlnext import standardised
from control_composer.nodes.load import load_source
from control_composer.tests import narrow
from control_composer.tests.checkpoints.controlnext_reference import added, reference
from control_composer.tests.control.case import IMAGE, SIZE, Case, save
from control_composer.tests.control.case_controlnext import controlnext, random_controlnext

PAIRS = [("sd1", "SD1.5"), ("sdxl", "SDXL"), ("sdxl", "SDXL July"), ("sdxl", "August"), ("sd1", "August")]
PLACES = {"SD1": "map input 3", "SDXL": "map input 0"}


class Published:
    """The host's UNet with the map added where the repository's UNets add it, as a straight line: what goes into it and what comes out."""

    def __init__(self, unet: Any, kind: str, release: str, hint_bchw: Tensor, strength: float) -> None:
        self.unet, self.kind, self.release = unet, kind, release
        self.net, self.hint, self.strength = reference(release), hint_bchw, strength
        self.net.load_state_dict(random_controlnext(release))  # type: ignore[arg-type]

    def plus_map(self, h: Tensor, timesteps: Tensor) -> Tensor:
        hint = self.hint.repeat(len(h) // len(self.hint), 1, 1, 1)
        control, scale = self.net(hint, timesteps)
        pooled_first = not (self.release == "August" and self.kind == "sdxl")
        return h + added(h, control, scale, pooled_first) * self.strength

    def __call__(self, x: Tensor, timesteps: Tensor, context: Tensor, y: Tensor | None) -> Tensor:
        unet = self.unet
        emb = unet.time_embed(timestep_embedding(timesteps, unet.model_channels))
        if unet.num_classes is not None:
            emb = emb + unet.label_emb(y)
        place = ("middle", 0) if self.release != "August" else ("input", 0) if self.kind == "sdxl" else ("input", 3)
        skips, h = [], x
        for index, block in enumerate(unet.input_blocks):
            h = forward_timestep_embed(block, h, emb, context)
            skips.append(h)
            if ("input", index) == place:
                h = self.plus_map(h, timesteps)
        h = unet.middle_block(h, emb, context)
        if place[0] == "middle":
            h = self.plus_map(h, timesteps)
        for block in unet.output_blocks:
            h = torch.cat([h, skips.pop()], dim=1)
            h = forward_timestep_embed(block, h, emb, context, output_shape=skips[-1].shape if skips else None)
        return unet.out(h)


def watched(case: Case, conditionings: Any, size: tuple[int, int, int] = SIZE) -> tuple[dict[str, Any], Tensor]:
    """What the UNet itself got in the first call, and what it gave."""
    seen: list[tuple[dict[str, Any], Tensor]] = []
    unet = case.model.model.diffusion_model

    def watch(module: Any, given: Any, named: dict[str, Any], out: Tensor) -> None:
        if not seen:
            seen.append(({"x": given[0], "timesteps": given[1], **named}, out.clone()))

    hook = unet.register_forward_hook(watch, with_kwargs=True)
    narrow.sample(case.model, *conditionings, size, steps=2)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize(("kind", "release"), PAIRS)
def test_the_published_arithmetic(kind: str, release: str, tmp_path: Path) -> None:
    case = controlnext(kind, release)(tmp_path)
    got, found = watched(case, case.compose(strength=0.35))
    published = Published(case.model.model.diffusion_model, kind, release, IMAGE.movedim(-1, 1), 0.35)
    with torch.no_grad():
        expected = published(got["x"], got["timesteps"], got["context"], got.get("y"))
        published.strength = 0.0
        without = published(got["x"], got["timesteps"], got["context"], got.get("y"))
    assert narrow.relative(found, expected) <= 1e-4
    assert narrow.relative(without, expected) > 1e-2
    _, plain = watched(case, case.start())
    assert narrow.relative(plain, without) <= 1e-5  # the straight line is the host's UNet


@pytest.mark.parametrize("size", [(1, 9, 13), (3, 8, 16)])
def test_odd_sizes_and_one_hint_for_several_latents(size: tuple[int, int, int], tmp_path: Path) -> None:
    """The network computes one row where all rows have one picture."""
    case = controlnext("sd1", "August")(tmp_path)
    _, height, width = size
    image = narrow.picture(1, 8 * height, 8 * width)
    rows: list[int] = []
    network = case.ours.network
    hook = network.module.register_forward_hook(lambda _, given, __: rows.append(len(given[0])))
    conds = compose_controls(*case.start(), [layer_of(case.ours, image)])
    got, found = watched(case, conds, size)
    hook.remove()
    assert rows == [1, 1]
    published = Published(case.model.model.diffusion_model, "sd1", "August", image.movedim(-1, 1), 1.0)
    with torch.no_grad():
        expected = published(got["x"], got["timesteps"], got["context"], None)
    assert narrow.relative(found, expected) <= 1e-4


@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize(("kind", "base"), [("sd1", "SD1"), ("sdxl", "SDXL")])
def test_the_place_follows_the_model(kind: str, base: str, connected: bool, tmp_path: Path) -> None:
    """Which base a file of August is for is told by the model, connected to the loader or not."""
    case = controlnext(kind, "August", connected)(tmp_path)
    assert case.ours.network.base == (base if connected else "SD1 or SDXL")
    conds = case.compose()
    narrow.sample(case.model, *conds, SIZE, steps=1)
    [(block, weight)] = conds[0][0][1]["control"].record.steps[0].blocks
    assert (block, weight) == (PLACES[base], 1.0)
    place = case.ours.network.blocks(9, 16)[0]
    assert (place.name, place.height, place.width) == (block, *((5, 8) if base == "SD1" else (9, 16)))


def test_two_loaders_of_one_file(tmp_path: Path) -> None:
    """They share the module, and neither knows the model before it is sampled."""
    path = save(tmp_path, random_controlnext("August"), "twice.safetensors")
    sources = [load_source(path, None, "auto")[0] for _ in range(2)]
    model = narrow.make_model("sd1")
    start = narrow.conditioning("sd1", 10), narrow.conditioning("sd1", 11)
    layers = [layer_of(Control.unbound(source), IMAGE, strength=0.3) for source in sources]
    found = narrow.sample(model, *compose_controls(*start, layers), SIZE, steps=1)
    assert {source.blocks(8, 16)[0].name for source in sources} == {"map input 3"}
    connected, _ = load_source(path, model, "auto")
    layers = [layer_of(Control.unbound(connected), IMAGE, strength=0.3)] * 2
    expected = narrow.sample(model, *compose_controls(*start, layers), SIZE, steps=1)
    assert narrow.relative(found, expected) <= 1e-6


def refusal(case: Case, kind: str) -> str:
    conds = compose_controls(narrow.conditioning(kind, 1), narrow.conditioning(kind, 2), [layer_of(case.ours, IMAGE)])
    with pytest.raises(ControlError) as refused:
        narrow.sample(narrow.make_model(kind), *conds, SIZE, steps=1)
    return str(refused.value)


def test_other_bases_are_refused_before_the_first_step(tmp_path: Path) -> None:
    assert refusal(controlnext("sd1", "August")(tmp_path), "sdxl") == (
        "controlnext.safetensors is a ControlNeXt for SD1, but the model is NarrowSDXL; use a ControlNeXt made for NarrowSDXL, or a model of "
        "base SD1."
    )
    assert refusal(controlnext("sdxl", "SDXL July")(tmp_path), "sd1") == (
        "controlnext.safetensors is a ControlNeXt for SDXL, but the model is NarrowSD1; use a ControlNeXt made for NarrowSD1, or a model of "
        "base SDXL."
    )


def test_another_width_is_refused(tmp_path: Path) -> None:
    weights = dict(reference("August", out=64).state_dict())
    path = save(tmp_path, weights, "wide.safetensors")
    source, _ = load_source(path, None, "auto")
    model = narrow.make_model("sd1")
    assert refusal(Case("sd1", model, Control.unbound(source), None, ""), "sd1") == (
        "wide.safetensors is a ControlNeXt with a map of 64 channels, but the model NarrowSD1 has 32 at input 3, where it is added; use a "
        "ControlNeXt made for NarrowSD1, or a model of the width that this one was made for."
    )


def test_half_precision_keeps_the_map_finite(tmp_path: Path) -> None:
    """A map of one value has no deviation to divide by."""
    weights = {name: x.half() for name, x in random_controlnext("August").items()}
    weights["mid_convs.1.weight"].zero_()
    weights["mid_convs.1.bias"].zero_()
    source, _ = load_source(save(tmp_path, weights, "flat.safetensors"), None, "auto")
    case = Case("sd1", narrow.make_model("sd1"), Control.unbound(source), None, "")
    _, found = watched(case, case.compose())
    assert bool(torch.isfinite(found).all())


@pytest.mark.parametrize("pooled_last", [True, False])
def test_a_map_of_another_size(pooled_last: bool) -> None:
    """Where another node shrinks the features inside of the model, the order of pooling and standardising matters."""
    generator = torch.Generator().manual_seed(0)
    feature, control = (torch.randn(2, 4, *size, generator=generator) for size in ((5, 7), (16, 24)))
    expected = added(feature, control, 1.0, pooled_first=not pooled_last)
    assert narrow.relative(standardised(control, feature, pooled_last), expected) <= 1e-5
    assert narrow.relative(standardised(control, feature, not pooled_last), expected) > 1e-2
