"""ControlNet-XS in the host's sampler: the UNet's output against diffusers' UNetControlNetXSModel with the same weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

pytest.importorskip("comfy")
pytest.importorskip("diffusers")

import comfy.supported_models
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from control_composer.control import Control, ControlError, compose_controls, layer_of
from control_composer.nodes.load import load_source
from control_composer.residuals.blocks import halve
from control_composer.tests import narrow
from control_composer.tests.checkpoints.xs_names import model_modules, named
from control_composer.tests.control.case import made, save
from control_composer.tests.control.xs_reference import Watched, adapter_for, diffusers_unet, fused, watched

TOLERANCE = 1e-4
MATTERS = 1e-2
EQUAL = 2e-5
SIZE = (2, 8, 16)
IMAGE = narrow.picture(1, 64, 128)
HINT = IMAGE.movedim(-1, 1)


class NarrowSD2(comfy.supported_models.SD15):
    unet_config: ClassVar = narrow.SD1 | {"use_linear_in_transformer": True, "context_dim": 32}
    unet_extra_config: ClassVar = {}


MODELS: dict[str, Callable[[], Any]] = {
    "SD1": lambda: narrow.make_model("sd1"),
    "SD2": lambda: made(NarrowSD2),
    "SDXL": lambda: narrow.make_model("sdxl"),
}
STREAMS = {
    "SD1": ((4, 8, 16, 16), (1, 2, 4, 4)),
    "SD2": ((4, 8, 16, 24), (1, 1, 2, 3)),
    # Below 33 channels each is a group of its own, and its norm takes away again what the time embedding adds.
    "SDXL": ((8, 16, 64), (1, 2, 4)),
}


class XS:
    """A narrow model, an adapter for it by diffusers, and our control from its file."""

    def __init__(
        self, folder: Path, kind: str, mix: float | None = None, as_model: bool = False, **changes: Any
    ) -> None:
        self.kind = "sdxl" if kind == "SDXL" else "sd1"
        self.model = MODELS[kind]()
        unet = diffusers_unet(self.model)
        channels, heads = STREAMS[kind]
        adapter = adapter_for(unet, channels, heads, mix, **changes)
        self.whole = fused(unet, adapter)
        metadata = {"num_attention_heads": json.dumps(heads)} | (
            {} if mix is None else {"time_embedding_mix": str(mix)}
        )
        if changes.get("conditioning_channel_order"):
            metadata["conditioning_channel_order"] = changes["conditioning_channel_order"]
        tensors = dict(adapter.state_dict())
        if as_model:
            tensors = named(tensors, model_modules(len(channels)))
        self.path = save(folder, tensors, "xs.safetensors", metadata)
        self.source, self.description = load_source(self.path, self.model, "auto")

    def start(self) -> Any:
        width = self.model.model.model_config.unet_config["context_dim"]
        conds = narrow.conditioning(self.kind, 10), narrow.conditioning(self.kind, 11)
        for number, cond in enumerate(conds):
            cond[0][0] = torch.randn(1, 7, width, generator=torch.Generator().manual_seed(number))
        return conds

    def sample(self, *layers: Any, size: tuple[int, int, int] = SIZE, **changes: Any) -> Watched:
        conds = compose_controls(*self.start(), layers) if layers else self.start()
        with watched(self.model) as seen:
            narrow.sample(self.model, *conds, size, **{"steps": 2} | changes)
        return seen

    def layer(self, image: Tensor = IMAGE, **settings: Any) -> Any:
        return layer_of(Control.unbound(self.source), image, **settings)


@pytest.mark.parametrize(("kind", "mix"), [("SD1", None), ("SD2", 1.0), ("SDXL", None), ("SDXL", 0.95)])
def test_outputs_are_those_of_diffusers(kind: str, mix: float | None, tmp_path: Path) -> None:
    """For both branches, at strength 1 and another; the time embedding's share does not depend on it."""
    xs = XS(tmp_path, kind, mix)
    plain = xs.sample(steps=1)
    for strength in (1.0, 0.6):
        seen = xs.sample(xs.layer(strength=strength), steps=1)
        assert seen.worst(xs.whole, HINT, strength) <= TOLERANCE
        assert seen.worst(xs.whole, HINT, 0.8) > MATTERS
        assert narrow.relative(seen.calls[0][2], plain.calls[0][2]) > MATTERS


@pytest.fixture(scope="module")
def xs(tmp_path_factory: Any) -> XS:
    """SDXL, with a time embedding of its own: everything that there is."""
    return XS(tmp_path_factory.mktemp("xs"), "SDXL", 0.95)


def test_all_steps_of_a_run(xs: XS) -> None:
    seen = xs.sample(xs.layer(strength=0.8), steps=3)
    assert len(seen.calls) == 3
    assert seen.worst(xs.whole, HINT, 0.8) <= TOLERANCE


@pytest.mark.parametrize("cells", [(7, 13), (9, 5)])
def test_odd_sizes(xs: XS, cells: tuple[int, int]) -> None:
    """Both streams round up where they halve. Diffusers' decoder doubles, so it is told the sizes here."""
    image = narrow.picture(1, 8 * cells[0], 8 * cells[1])
    seen = xs.sample(xs.layer(image), size=(1, *cells), steps=1)
    handles = []
    for level, block in enumerate(xs.whole.up_blocks[:-1]):
        size = tuple(halve(length, 1 - level) for length in cells)
        handles.append(block.upsamplers.register_forward_pre_hook(lambda _, args, size=size: (args[0], size)))
    try:
        assert seen.worst(xs.whole, image.movedim(-1, 1)) <= TOLERANCE
    finally:
        for handle in handles:
            handle.remove()


def test_rows_left_out_are_those_of_the_model(xs: XS) -> None:
    """With balance 0 the unconditional rows are the plain ones, their time embedding included, and the others the controlled ones."""
    plain, both = xs.sample(steps=1).calls[0][2], xs.sample(xs.layer(), steps=1).calls[0][2]
    seen = xs.sample(xs.layer(uncond_strength=0.0), steps=1).calls[0][2]
    rows = [narrow.relative(seen[row], plain[row]) <= EQUAL for row in range(4)]
    assert sorted(rows) == [False, False, True, True]
    for row, left_out in enumerate(rows):
        assert narrow.relative(seen[row], (plain if left_out else both)[row]) <= EQUAL
        assert narrow.relative(both[row], plain[row]) > MATTERS


def test_a_hint_for_each_latent(xs: XS) -> None:
    images = narrow.picture(2, 64, 128, seed=8)
    seen = xs.sample(xs.layer(images), steps=1)
    assert seen.worst(xs.whole, images.movedim(-1, 1)) <= TOLERANCE


def test_it_reads_what_other_nodes_have_done(xs: XS) -> None:
    """What a patch of another node does to a feature behind its place in the skip connection is in what both streams read."""
    patched = xs.model.clone()
    seen_by: list[Tensor] = []

    def scaled(h: Tensor, options: Any) -> Tensor:
        if options["block"] == ("input", 2):
            seen_by.append(h)
            return h * 0.5
        return h

    patched.model_options.setdefault("transformer_options", {})["patches"] = {"input_block_patch_after_skip": [scaled]}
    conds = compose_controls(*xs.start(), [xs.layer()])
    with watched(xs.model) as seen:
        narrow.sample(patched, *conds, SIZE, steps=1)
    assert seen_by
    assert seen.worst(xs.whole, HINT) > MATTERS
    level = xs.whole.down_blocks[0]
    readers = (level.base_to_ctrl[2], level.base_downsamplers)
    handles = [reader.register_forward_pre_hook(lambda _, args: (args[0] * 0.5,)) for reader in readers]
    try:
        assert seen.worst(xs.whole, HINT) <= TOLERANCE
    finally:
        for handle in handles:
            handle.remove()


def test_blue_before_red(tmp_path: Path) -> None:
    xs = XS(tmp_path, "SD1", conditioning_channel_order="bgr")
    seen = xs.sample(xs.layer(), steps=1)
    assert seen.worst(xs.whole, HINT) <= TOLERANCE
    assert seen.worst(xs.whole, HINT.flip(1)) > MATTERS / 10
    assert "hint channels: blue, green, red" in xs.description


def test_networks_trained_before_the_adapter(tmp_path: Path) -> None:
    """In the original and in diffusers' older class the norms of the middle are grouped as all others are, which the adapter changed."""
    xs = XS(tmp_path, "SD2", 0.95, as_model=True)
    assert "layout of diffusers 0.25 to 0.27" in xs.description
    seen = xs.sample(xs.layer(), steps=1)
    assert seen.worst(xs.whole, HINT) > TOLERANCE
    middle = xs.whole.mid_block.ctrl_midblock
    for norm in (*norms(middle.resnets), *norms(middle.attentions)):
        norm.num_groups = max(count for count in range(1, 33) if norm.num_channels % count == 0)
    for norm in norms(middle.resnets):
        norm.eps = 1e-5
    assert seen.worst(xs.whole, HINT) <= TOLERANCE


def test_a_model_in_half_precision(xs: XS) -> None:
    """The stream computes in its own dtype; what it adds and mixes is in the model's."""
    half = narrow.make_model("sdxl", dtype=torch.bfloat16)
    conds = compose_controls(*xs.start(), [xs.layer()])
    with watched(half) as seen:
        narrow.sample(half, *conds, SIZE, steps=1)
    full = xs.sample(xs.layer(), steps=1).calls[0][2]
    found, plain = seen.calls[0][2], xs.sample(steps=1).calls[0][2]
    assert found.dtype == torch.bfloat16
    assert (found.float() - full).norm() < 0.1 * (full - plain).norm()


def test_one_network_for_one_file_and_its_settings(xs: XS) -> None:
    again, _ = load_source(xs.path, xs.model, "auto")
    assert again.module is xs.source.module
    beside = xs.path.with_name("config.json")
    config = {
        "_class_name": "ControlNetXSAdapter",
        "block_out_channels": [8, 16, 64],
        "conditioning_channel_order": "bgr",
    }
    beside.write_text(json.dumps(config))
    try:
        other, description = load_source(xs.path, xs.model, "auto")
    finally:
        beside.unlink()
    assert other.module is not xs.source.module and other.settings.bgr and "blue, green, red" in description


def test_a_model_of_another_base(xs: XS, tmp_path: Path) -> None:
    other = narrow.make_model("sd1")
    conds = compose_controls(narrow.conditioning("sd1", 1), narrow.conditioning("sd1", 2), [xs.layer()])
    with pytest.raises(ControlError) as caught:
        narrow.sample(other, *conds, SIZE, steps=1)
    assert str(caught.value) == (
        "xs.safetensors is a ControlNet-XS for custom (32-64-128 channels, text of 40) (9 blocks of 32 to 128 channels, context 40), but the model "
        "is NarrowSD1, which has 12 blocks of 32 to 128 channels, context 24; use a ControlNet-XS made for NarrowSD1, or a model of base custom "
        "(32-64-128 channels, text of 40)."
    )


def test_a_model_that_is_shrunk_inside(xs: XS) -> None:
    patched = xs.model.clone()

    def shrink(h: Tensor, options: Any) -> Tensor:
        return avg_pool2d(h, 2) if options["block"] == ("input", 1) else h

    patched.model_options.setdefault("transformer_options", {})["patches"] = {"input_block_patch_after_skip": [shrink]}
    conds = compose_controls(*xs.start(), [xs.layer()])
    with pytest.raises(ControlError) as caught:
        narrow.sample(patched, *conds, SIZE, steps=1)
    assert str(caught.value) == (
        "feature input 2 of the model is 8×4 cells, but 16×8 were expected by xs.safetensors; remove the node that changes the sizes inside of the "
        "model."
    )


def test_blocks(xs: XS) -> None:
    """The host's own blocks in the order in which the UNet passes them, with the widths of the features there."""
    blocks = xs.source.blocks(8, 16)
    assert [(block.place, block.index) for block in blocks] == [
        *(("input", index) for index in range(9)),
        ("middle", 0),
        *(("output", index) for index in range(9)),
    ]
    features: list[tuple[int, int, int]] = []
    patches = {
        "input_block_patch": [lambda h, options: (features.append(tuple(h.shape[1:])), h)[1]],
        "middle_block_after_patch": [lambda given: (features.append(tuple(given["h"].shape[1:])), given)[1]],
        "output_block_patch": [lambda h, skip, options: (features.append(tuple(h.shape[1:])), (h, skip))[1]],
    }
    patched = xs.model.clone()
    patched.model_options.setdefault("transformer_options", {})["patches"] = patches
    narrow.sample(patched, *xs.start(), SIZE, steps=1, cfg=1.0)
    assert [(block.channels, block.height, block.width) for block in blocks] == features


def norms(module: nn.Module) -> list[nn.GroupNorm]:
    return [part for part in module.modules() if isinstance(part, nn.GroupNorm)]
