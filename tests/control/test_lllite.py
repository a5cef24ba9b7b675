"""ControlNet-LLLite in the host's sampler, against the published modules put before the UNet's own layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("comfy")

import comfy.ops
import torch
from torch import Tensor

from control_composer.checkpoints.lllite import LLLiteHyperparameters
from control_composer.checkpoints.networks.lllite import LLLite, from_file
from control_composer.control import Control, ControlError, LLLiteNetwork, compose_controls, layer_of
from control_composer.nodes.load import load_source
from control_composer.residuals import ListedWeights
from control_composer.tests import narrow
from control_composer.tests.checkpoints.lllite_reference import added, module, random_lllite
from control_composer.tests.control.case import save
from control_composer.tests.control.case_lllite import modules

TOLERANCE = 1e-4
MATTERS = 1e-2
SIZE = (2, 8, 16)
EVEN = narrow.picture(2, 64, 128)


class File:
    """A narrow file: its tensors, the model and our control of it."""

    def __init__(self, folder: Path, kind: str, net: LLLiteHyperparameters, seed: int = 0) -> None:
        self.kind, self.net = kind, net
        self.tensors = random_lllite(net, seed)
        self.model = narrow.make_model(kind)
        path = save(folder, self.tensors, f"lllite_{seed}.safetensors")
        self.ours = Control.unbound(load_source(path, self.model, "auto")[0])

    @property
    def unet(self) -> Any:
        return self.model.model.diffusion_model

    def start(self) -> tuple[Any, Any]:
        return narrow.conditioning(self.kind, 10), narrow.conditioning(self.kind, 11)

    def sample(self, *layers: Any, size: tuple[int, int, int] = SIZE, **changes: Any) -> Tensor:
        conds = compose_controls(*self.start(), layers) if layers else self.start()
        return narrow.sample(self.model, *conds, size, **{"steps": 2} | changes)


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def file(request: Any, tmp_path_factory: Any) -> File:
    kind = request.param
    return File(tmp_path_factory.mktemp("lllite"), kind, modules(kind, outputs=kind == "sdxl"))


@pytest.fixture(scope="module")
def xl(tmp_path_factory: Any) -> File:
    return File(tmp_path_factory.mktemp("lllite"), "sdxl", modules("sdxl"))


def hint_of(image: Tensor, multiple: int = 32) -> Tensor:
    """The hint as the published module gets it, its lower and right edge repeated up to whole tokens."""
    rows, columns = (torch.arange(-(-n // multiple) * multiple).clamp(max=n - 1) for n in image.shape[1:3])
    return image.movedim(-1, 1)[:, :, rows][:, :, :, columns]


def test_latents_are_those_of_the_published_modules(file: File) -> None:
    ours = file.sample(layer_of(file.ours, EVEN))
    with added(file.unet, file.tensors, hint_of(EVEN)):
        theirs = file.sample()
    assert narrow.relative(theirs, file.sample()) > MATTERS
    assert narrow.relative(ours, theirs) <= TOLERANCE


@pytest.mark.parametrize("cells", [(7, 13), (5, 8), (9, 3)])
def test_odd_sizes(file: File, cells: tuple[int, int]) -> None:
    """The UNet rounds odd sizes up; where the published modules, whose convolutions round down, have one token less."""
    height, width = cells
    image = narrow.picture(1, 8 * height, 8 * width)
    ours = file.sample(layer_of(file.ours, image), size=(1, *cells))
    # A token is 8, 16 or 32 pixels, so each depth has its own number of them in the same padded picture.
    halves = {1: cells, 2: (-(-height // 2), -(-width // 2)), 3: (-(-height // 4), -(-width // 4))}
    hints = {depth: hint_of(image, 4 * 2**depth) for depth in (1, 2, 3)}
    for depth, size in halves.items():
        assert tuple(hints[depth].shape[-2:]) == (size[0] * 4 * 2**depth, size[1] * 4 * 2**depth)
    with (
        added(file.unet, of_depth(file, 1), hints[1]),
        added(file.unet, of_depth(file, 2), hints[2]),
        added(file.unet, of_depth(file, 3), hints[3]),
    ):
        theirs = file.sample(size=(1, *cells))
    assert narrow.relative(ours, theirs) <= TOLERANCE


def of_depth(file: File, depth: int) -> dict[str, Tensor]:
    names = {one.name for one in file.net.modules if one.depth == depth}
    return {name: tensor for name, tensor in file.tensors.items() if name.split(".")[0] in names}


def test_the_middle_of_sd1(tmp_path: Path) -> None:
    """No depth fits its tokens, so the embedding is resized to them, as sd-webui-controlnet does."""
    net = LLLiteHyperparameters(
        (module("input_blocks_1", width=32, depth=1), module("middle_block", width=128, depth=3))
    )
    file = File(tmp_path, "sd1", net)
    assert [block.level for block in file.ours.network.blocks(16, 24)] == [0, 3]
    image = narrow.picture(1, 128, 192)
    ours = file.sample(layer_of(file.ours, image), size=(1, 16, 24))
    with added(file.unet, file.tensors, hint_of(image), **{net.modules[1].name: (2, 3)}):
        theirs = file.sample(size=(1, 16, 24))
    assert narrow.relative(theirs, file.sample(size=(1, 16, 24))) > MATTERS
    assert narrow.relative(ours, theirs) <= TOLERANCE


def test_weights_of_1x1_convolutions(tmp_path: Path) -> None:
    net = LLLiteHyperparameters(
        (module("input_blocks_4", convolution=True), module("middle_block", width=128, depth=3))
    )
    file = File(tmp_path, "sdxl", net)
    with added(file.unet, file.tensors, hint_of(EVEN)):
        theirs = file.sample()
    assert narrow.relative(file.sample(layer_of(file.ours, EVEN)), theirs) <= TOLERANCE


def test_strength_balance_weights_and_mask(xl: File) -> None:
    """Each factor where the published module would have its multiplier."""
    mask = torch.zeros(1, 64, 128)
    mask[..., 64:96] = 1
    names = [block.name for block in xl.ours.network.blocks(8, 16)]
    assert names == [
        "attention input 4",
        "attention input 5",
        "attention input 7",
        "attention input 8",
        "attention middle",
    ]
    layer = layer_of(
        xl.ours, EVEN, 0.8, uncond_strength=0.25, weights=ListedWeights((1.0, 0.0, 0.5, 2.0, 1.5)), mask=mask
    )
    factors = {
        "input_blocks_4": 1.0,
        "input_blocks_5": 0.0,
        "input_blocks_7": 0.5,
        "input_blocks_8": 2.0,
        "middle": 1.5,
    }

    def shaped(name: str, change: Tensor) -> Tensor:
        tokens = change.shape[1]
        rows, columns = (4, 8) if tokens == 32 else (2, 4)
        inside = torch.zeros(rows, columns)
        inside[:, columns // 2 : columns * 3 // 4] = 1
        branch = torch.ones(len(change))
        branch[uncond_rows(len(change))] = 0.25
        factor = next(value for key, value in factors.items() if key in name)
        return change * 0.8 * factor * branch.view(-1, 1, 1) * inside.flatten().view(1, -1, 1)

    spy = narrow.Spy(xl.model)
    narrow.sample(spy.model, *xl.start(), SIZE, steps=1)
    kinds = spy.calls[0].kinds

    def uncond_rows(count: int) -> list[int]:
        assert count == 2 * len(kinds)
        return [row for row in range(count) if kinds[row // 2] == 1]

    with added(xl.unet, xl.tensors, hint_of(EVEN), shaped):
        theirs = xl.sample()
    assert narrow.relative(xl.sample(layer), theirs) <= TOLERANCE


def test_a_range_ends(xl: File) -> None:
    """Nothing is left of it at the steps outside: the first step of two is the layer's, the second the model's own."""
    assert torch.equal(xl.sample(layer_of(xl.ours, EVEN, 0.0)), xl.sample())
    calls: list[tuple[Tensor, Tensor]] = []

    def watch(apply_model: Any, call: dict[str, Any]) -> Tensor:
        out: Tensor = apply_model(call["input"], call["timestep"], **call["c"])
        plain = {name: value for name, value in call["c"].items() if name != "control"}
        plain["transformer_options"] = {**call["c"]["transformer_options"], "patches": {}}
        calls.append((out, apply_model(call["input"], call["timestep"], **plain)))
        return out

    model = xl.model.clone()
    model.set_model_unet_function_wrapper(watch)
    conds = compose_controls(*xl.start(), [layer_of(xl.ours, EVEN, end_percent=0.3)])
    narrow.sample(model, *conds, SIZE, steps=2)
    assert narrow.relative(*calls[0]) > MATTERS
    assert narrow.relative(*calls[1]) == 0


def test_several_layers_in_their_order(xl: File, tmp_path: Path) -> None:
    """As with one published node after the other, the second reads what the first has changed."""
    other = File(tmp_path, "sdxl", modules("sdxl", outputs=True), seed=7)
    image = narrow.picture(2, 64, 128, seed=8)
    ours = xl.sample(layer_of(xl.ours, EVEN, 0.6), layer_of(other.ours, image, 0.9))
    with (
        added(xl.unet, xl.tensors, hint_of(EVEN), lambda _, change: 0.6 * change),
        added(xl.unet, other.tensors, hint_of(image), lambda _, change: 0.9 * change),
    ):
        theirs = xl.sample()
    assert narrow.relative(ours, theirs) <= TOLERANCE
    swapped = xl.sample(layer_of(other.ours, image, 0.9), layer_of(xl.ours, EVEN, 0.6))
    assert narrow.relative(swapped, theirs) > TOLERANCE


def test_one_file_with_two_pictures(xl: File) -> None:
    image = narrow.picture(1, 64, 128, seed=8)
    ours = xl.sample(layer_of(xl.ours, EVEN, 0.5), layer_of(xl.ours, image, 0.5))
    with (
        added(xl.unet, xl.tensors, hint_of(EVEN), lambda _, change: 0.5 * change),
        added(xl.unet, xl.tensors, hint_of(image), lambda _, change: 0.5 * change),
    ):
        theirs = xl.sample()
    assert narrow.relative(ours, theirs) <= TOLERANCE


def test_beside_a_controlnet(file: File) -> None:
    net = narrow.make_module(file.kind)
    controlnet = layer_of(narrow.make_ours(net, "narrow"), narrow.picture(2, 64, 128, seed=9), 0.7)
    ours = file.sample(layer_of(file.ours, EVEN), controlnet)
    conds = narrow.stock_apply(*file.start(), narrow.make_stock(net), narrow.picture(2, 64, 128, seed=9), 0.7)
    with added(file.unet, file.tensors, hint_of(EVEN)):
        theirs = narrow.sample(file.model, *conds, SIZE, steps=2)
    assert narrow.relative(ours, theirs) <= TOLERANCE


def test_an_area_sees_its_part_of_the_picture(xl: File) -> None:
    import nodes  # ComfyUI's

    image = narrow.picture(1, 64, 128)
    # 5 × 9 cells at row 2, column 3.
    (positive,) = nodes.ConditioningSetArea().append(xl.start()[0], 72, 40, 24, 16, 1.0)
    conds = compose_controls(positive, xl.start()[1], [layer_of(xl.ours, image)])
    ours = narrow.sample(xl.model, *conds, (1, 8, 16), steps=2, cfg=1.0)
    part = image[:, 16:56, 24:96]
    deep, fine = hint_of(part, 32), hint_of(part, 16)
    with added(xl.unet, of_depth(xl, 2), fine), added(xl.unet, of_depth(xl, 3), deep):
        theirs = narrow.sample(xl.model, positive, xl.start()[1], (1, 8, 16), steps=2, cfg=1.0)
    assert narrow.relative(ours, theirs) <= TOLERANCE


def test_frames_keep_their_pictures_in_context_windows(xl: File) -> None:
    from control_composer.tests.control.test_windows import windowed

    images = narrow.picture(5, 64, 64)
    seen: list[Tensor] = []

    def first_call(model: Any, layers: list[Any]) -> list[tuple[Tensor, Tensor]]:
        calls = []

        def watch(apply_model: Any, call: dict[str, Any]) -> Tensor:
            out: Tensor = apply_model(call["input"], call["timestep"], **call["c"])
            calls.append((call["input"].clone(), out.clone()))
            return out

        watched = model.clone()
        watched.set_model_unet_function_wrapper(watch)
        narrow.sample(watched, *compose_controls(*xl.start(), layers), (5, 8, 8), steps=1)
        return calls

    layer = layer_of(xl.ours, images)
    whole = torch.cat([out for _, out in first_call(xl.model, [layer])])
    pixels = torch.cat([given for given, _ in first_call(xl.model, [layer])])
    for given, out in first_call(windowed(xl.model), [layer]):
        assert len(given) == 6  # two branches of windows of three
        for row in range(6):
            frames = [n for n in range(10) if torch.equal(pixels[n], given[row])]
            assert any(narrow.relative(out[row], whole[n]) <= TOLERANCE for n in frames)
            seen.append(out[row])
    assert len(seen) >= 12


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_a_model_of_another_base(kind: str, tmp_path: Path) -> None:
    """Without a connected model at the Load node, before the first step."""
    other = "sdxl" if kind == "sd1" else "sd1"
    path = save(tmp_path, random_lllite(modules(kind)), "lllite.safetensors")
    ours = Control.unbound(load_source(path, None, "auto")[0])
    conds = narrow.conditioning(other, 10), narrow.conditioning(other, 11)
    place = {
        "sd1": "32 channels for attn1.to_k of transformer block 0 in input block 1, but the model is NarrowSDXL, which has no such place; "
        "use an LLLite made for NarrowSDXL, or a model of base custom (32-64-128 channels).",
        "sdxl": "128 channels for attn1.to_k of transformer block 1 in input block 7, but the model is NarrowSD1, which has no such place; "
        "use an LLLite made for NarrowSD1, or a model of base custom (64-128 channels).",
    }[kind]
    base = {"sd1": "custom (32-64-128 channels)", "sdxl": "custom (64-128 channels)"}[kind]
    with pytest.raises(ControlError) as caught:
        narrow.sample(narrow.make_model(other), *compose_controls(*conds, [layer_of(ours, EVEN)]), SIZE, steps=1)
    assert str(caught.value) == f"lllite.safetensors is an LLLite for {base} with a module of {place}"


def test_a_model_of_other_widths(tmp_path: Path) -> None:
    path = save(
        tmp_path, random_lllite(LLLiteHyperparameters((module("input_blocks_4", width=640),))), "lllite.safetensors"
    )
    ours = Control.unbound(load_source(path, None, "auto")[0])
    conds = narrow.conditioning("sd1", 10), narrow.conditioning("sd1", 11)
    with pytest.raises(
        ControlError, match=r"for SD1 or SD2 or SDXL with .*, but the model is NarrowSD1, which has 64 channels; use"
    ):
        narrow.sample(narrow.make_model("sd1"), *compose_controls(*conds, [layer_of(ours, EVEN)]), SIZE, steps=1)


def test_merged_tokens_are_refused(xl: File) -> None:
    model = xl.model.clone()
    model.set_model_attn1_patch(lambda q, k, v, _: (q[:, ::2], k, v))
    with pytest.raises(ControlError) as caught:
        conds = compose_controls(*xl.start(), [layer_of(xl.ours, EVEN)])
        narrow.sample(model, *conds, SIZE, steps=1)
    assert str(caught.value) == (
        "attention input 4 of the model reads 16 tokens, but lllite_0.safetensors changes all 4 × 8 of them; remove the node that merges or "
        "tiles the tokens (ToMe, HyperTile)."
    )


def test_a_model_shrunk_inside(xl: File) -> None:
    """The host's node that halves the features inside of the model at early steps: tokens and hint stay on each other."""
    from comfy_extras.nodes_model_downscale import PatchModelAddDownscale

    arguments = (3, 2.0, 0.0, 1.0, True, "bicubic", "bicubic")
    execute = getattr(PatchModelAddDownscale, "execute", None) or PatchModelAddDownscale().patch
    model = execute(xl.model, *arguments)
    model = model.result[0] if hasattr(model, "result") else model[0]
    sizes = {one.name: (2, 4) if one.depth == 2 else (1, 2) for one in xl.net.modules}
    ours = narrow.sample(model, *compose_controls(*xl.start(), [layer_of(xl.ours, EVEN)]), SIZE, steps=2)
    with added(xl.unet, xl.tensors, hint_of(EVEN), **sizes):
        theirs = narrow.sample(model, *xl.start(), SIZE, steps=2)
    assert narrow.relative(ours, theirs) <= TOLERANCE


def test_weights_in_half_precision_that_are_cast(xl: File) -> None:
    """As the host computes with a file of fp16 on a device without it."""
    half = {name: tensor.half() for name, tensor in xl.tensors.items()}
    net = LLLite(xl.net, comfy.ops.manual_cast, dtype=torch.float16, device="cpu")
    net.load_state_dict(from_file(xl.net, half))
    network = LLLiteNetwork(net, xl.ours.network.patcher, "half", "SDXL", torch.float32)
    assert network.dtype == torch.float32
    ours = xl.sample(layer_of(Control.unbound(network), EVEN))
    with added(xl.unet, {name: tensor.float() for name, tensor in half.items()}, hint_of(EVEN)):
        theirs = xl.sample()
    assert narrow.relative(ours, theirs) <= TOLERANCE


def test_memory_that_embeddings_take(xl: File) -> None:
    network = xl.ours.network
    hint = torch.rand(3, 3, 56, 104)
    assert network.memory_requirements(3, 56, 104) == sum(tensor.nbytes for tensor in network.embed_hint(hint))
