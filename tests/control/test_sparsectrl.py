"""SparseCtrl against diffusers' class with the same random weights, through the host's sampler: every residual of every frame and branch.

Diffusers normalises all frames of a video together in front of each motion module, AnimateDiff each frame by itself, and the published weights are
AnimateDiff's. So the reference has its norms wrapped, except with one frame, where both are one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("comfy")

import torch
from comfy.context_windows import ContextFuseMethods, ContextSchedules
from torch import Tensor

from control_composer.control import Control, ControlError, FrameIndices, compose_controls, layer_of
from control_composer.nodes.load import load_source
from control_composer.nodes.sparse import at_frames
from control_composer.tests import narrow
from control_composer.tests.control.case import save
from control_composer.tests.control.case_ctrlora import make_vae
from control_composer.tests.control.case_sparsectrl import HEADS, animatediff_names, network

TOLERANCE = 1e-4
H, W = 8, 16


class EachFrame(torch.nn.Module):
    """A norm over (b, c, f, h, w) that normalises each frame by itself."""

    def __init__(self, norm: torch.nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        rows = self.norm(x.transpose(1, 2).flatten(0, 1))
        found: Tensor = rows.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)
        return found


def normalising_each_frame(net: Any) -> Any:
    for block in net.down_blocks:
        for module in block.motion_modules:
            module.norm = EachFrame(module.norm)
    return net


@pytest.fixture(scope="module")
def model() -> Any:
    return narrow.make_model("sd1")


@pytest.fixture(scope="module")
def vae() -> Any:
    return make_vae()


@pytest.fixture(scope="module", params=["RGB", "scribble"])
def rgb(request: Any) -> bool:
    return bool(request.param == "RGB")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    path: Path = tmp_path_factory.mktemp("sparse")
    return path


@pytest.fixture(scope="module")
def control(rgb: bool, folder: Path) -> Control:
    return load(folder, animatediff_names(network(rgb).state_dict()))


@pytest.fixture(scope="module")
def scribble(folder: Path) -> Control:
    return load(folder, network(rgb=False).state_dict(), "scribble.safetensors")


def load(folder: Path, tensors: dict[str, Tensor], name: str = "sparse.safetensors") -> Control:
    return Control.unbound(load_source(save(folder, tensors, name, HEADS), None, "auto")[0])


def start() -> Any:
    return narrow.conditioning("sd1", 10), narrow.conditioning("sd1", 11)


def composed(control: Control, image: Tensor, **settings: Any) -> Any:
    return compose_controls(*start(), [layer_of(control, image, **settings)])


def calls_of(model: Any, conds: Any, frames: int, **changes: Any) -> list[dict[str, Any]]:
    """What the UNet is given in each call: sigma, text, latents and residuals (middle last)."""
    found = []

    def watch(apply_model: Any, call: dict[str, Any]) -> Tensor:
        control = call["c"].get("control")
        found.append(
            {
                "kinds": list(call["cond_or_uncond"]),
                "sigma": call["timestep"].clone(),
                "text": call["c"]["c_crossattn"].clone(),
                "input": call["input"].clone(),
                "residuals": None if control is None else [x.clone() for x in control["output"] + control["middle"]],
            }
        )
        out: Tensor = apply_model(call["input"], call["timestep"], **call["c"])
        return out

    spied = model.clone()
    spied.set_model_unet_function_wrapper(watch)
    narrow.sample(spied, *conds, (frames, H, W), **{"steps": 1} | changes)
    return found


@torch.no_grad()
def reference(net: Any, model: Any, vae: Any, call: dict[str, Any], hints: dict[int, Tensor]) -> list[Tensor]:
    """Diffusers' residuals for one call; `hints` holds a picture (H, W, 3) for some frames."""
    chunks = len(call["kinds"])
    frames = len(call["input"]) // chunks
    rgb = net.config.use_simplified_condition_embedding
    channels, size = (4, (H, W)) if rgb else (3, (8 * H, 8 * W))
    cond, mask = torch.zeros(1, channels, frames, *size), torch.zeros(1, 1, frames, *size)
    for frame, picture in hints.items():
        pixels = picture.unsqueeze(0)
        cond[0, :, frame] = 0.18215 * vae.encode(pixels)[0] if rgb else pixels[0].movedim(-1, 0)
        mask[0, 0, frame] = 1
    sampling = model.model.model_sampling
    down, middle = net(
        torch.randn(chunks, 4, frames, H, W),
        sampling.timestep(call["sigma"])[0],
        encoder_hidden_states=call["text"],
        controlnet_cond=cond.expand(chunks, -1, -1, -1, -1),
        conditioning_mask=mask.expand(chunks, -1, -1, -1, -1),
        return_dict=False,
    )
    return [*down, middle]


def agree(found: list[Tensor], expected: list[Tensor], strength: float = 1.0) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert narrow.relative(ours, strength * theirs) <= TOLERANCE


def test_each_residual_of_a_video(model: Any, vae: Any, rgb: bool, control: Control) -> None:
    """Three pictures spread over five frames: 0, 2, 4."""
    image = narrow.picture(3, 8 * H, 8 * W)
    (call,) = calls_of(model, composed(control, image, vae=vae), 5)
    assert call["kinds"] == [0, 1] or call["kinds"] == [1, 0]
    net = normalising_each_frame(network(rgb))
    hints = {0: image[0], 2: image[1], 4: image[2]}
    agree(call["residuals"], reference(net, model, vae, call, hints))
    with pytest.raises(AssertionError):
        agree(call["residuals"], reference(net, model, vae, call, {0: image[0], 1: image[1], 4: image[2]}))


def test_one_frame_and_diffusers_layout_as_they_are(model: Any, vae: Any, rgb: bool, folder: Path) -> None:
    net = network(rgb, seed=13)
    control = load(folder, net.state_dict(), "diffusers.safetensors")
    image = narrow.picture(1, 8 * H, 8 * W, seed=8)
    (call,) = calls_of(model, composed(control, image, vae=vae, strength=0.7), 1)
    agree(call["residuals"], reference(net, model, vae, call, {0: image[0]}), 0.7)


def test_the_noisy_latent_is_not_seen(model: Any, vae: Any, control: Control) -> None:
    image = narrow.picture(1, 8 * H, 8 * W)
    (one,), (other,) = (calls_of(model, composed(control, image, vae=vae), 2, seed=seed) for seed in (1, 2))
    assert not torch.equal(one["input"], other["input"])
    assert all(map(torch.equal, one["residuals"], other["residuals"]))


def windowed(model: Any, length: int, **settings: Any) -> Any:
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    arguments = {
        "context_length": length,
        "context_overlap": 1,
        "context_schedule": ContextSchedules.STATIC_STANDARD,
        "context_stride": 1,
        "closed_loop": False,
        "fuse_method": ContextFuseMethods.PYRAMID,
        "dim": 0,
        "freenoise": False,
        "causal_window_fix": False,
    }
    return ContextWindowsManualNode.execute(model, **arguments | settings).result[0]


def test_windows_show_the_pictures_of_their_frames(model: Any, vae: Any, scribble: Control) -> None:
    """Frames are told by their latents, which are those of a run without windows. Places count from the window's first frame."""
    image = narrow.picture(2, 8 * H, 8 * W)
    conds = composed(at_frames(scribble, "1, -1"), image)
    latents = calls_of(model, conds, 6)[0]["input"][:6]
    pictures = {1: image[0], 5: image[1]}
    net = normalising_each_frame(network(rgb=False))
    told = []
    for call in calls_of(windowed(model, 3), conds, 6):
        rows = call["input"][: len(call["input"]) // len(call["kinds"])]
        frames = [next(frame for frame in range(6) if torch.equal(row, latents[frame])) for row in rows]
        told.append(tuple(frames))
        hints = {place: pictures[frame] for place, frame in enumerate(frames) if frame in pictures}
        agree(call["residuals"], reference(net, model, vae, call, hints))
    assert {(0, 1, 2), (3, 4, 5)} <= set(told)


def test_more_frames_than_places(model: Any, scribble: Control) -> None:
    conds = composed(scribble, narrow.picture(1, 8 * H, 8 * W))
    with pytest.raises(ControlError) as caught:
        calls_of(model, conds, 33)
    assert str(caught.value) == (
        "scribble.safetensors knows places for 32 frames, but 33 are sampled at a time; sample in context windows of at most 32 frames, for "
        "example with the host's node Context Windows (Manual), or make the batch shorter."
    )


def test_areas_and_sizing(model: Any, vae: Any, rgb: bool, control: Control) -> None:
    """The right half of the canvas gets the right half of the picture, stretched over all of it."""
    import nodes  # ComfyUI's

    image = narrow.picture(1, 4 * H, 4 * W, seed=6)
    conds = composed(control, image, vae=vae, sizing="stretch")
    cut = [nodes.ConditioningSetArea().append(cond, 4 * W, 8 * H, 4 * W, 0, 1.0)[0] for cond in conds]
    placed = image.repeat_interleave(2, 1).repeat_interleave(2, 2)
    for call in calls_of(model, cut, 1):
        assert call["input"].shape[-1] == W // 2
        expected = half(network(rgb), model, vae, call, placed[0, :, 4 * W :])
        agree(call["residuals"], expected)


@torch.no_grad()
def half(net: Any, model: Any, vae: Any, call: dict[str, Any], picture: Tensor) -> list[Tensor]:
    chunks, rgb = len(call["kinds"]), net.config.use_simplified_condition_embedding
    hint = 0.18215 * vae.encode(picture.unsqueeze(0)) if rgb else picture.unsqueeze(0).movedim(-1, 1)
    hint = hint.unsqueeze(2).expand(chunks, -1, -1, -1, -1)
    down, middle = net(
        torch.zeros(chunks, 4, 1, H, W // 2),
        model.model.model_sampling.timestep(call["sigma"])[0],
        encoder_hidden_states=call["text"],
        controlnet_cond=hint,
        conditioning_mask=torch.ones_like(hint[:, :1]),
        return_dict=False,
    )
    return [*down, middle]


def test_an_rgb_file_without_a_vae(folder: Path) -> None:
    control = load(folder, network(rgb=True).state_dict(), "rgb.safetensors")
    with pytest.raises(ControlError) as caught:
        composed(control, narrow.picture(1, 64, 64))
    assert str(caught.value) == (
        "rgb.safetensors reads the latents of its pictures, but no VAE is connected to the Apply node and the model's own was expected; connect "
        "the VAE of the checkpoint to its vae input."
    )


def test_a_vae_of_another_base(model: Any, folder: Path) -> None:
    control = load(folder, network(rgb=True).state_dict(), "rgb.safetensors")
    with pytest.raises(ControlError) as caught:
        calls_of(model, composed(control, narrow.picture(1, 64, 128), vae=make_vae(channels=16)), 1)
    assert str(caught.value) == (
        "The VAE of rgb.safetensors makes latents of 16 × 8 × 16 of a picture, but 4 × 8 × 16 were expected, as custom (32 channels x 1-2-4-4, "
        "text of 24) has them; connect the VAE of the checkpoint."
    )


def test_another_base(scribble: Control) -> None:
    conds = narrow.conditioning("sdxl", 10), narrow.conditioning("sdxl", 11)
    composed_conds = compose_controls(*conds, [layer_of(scribble, narrow.picture(1, 64, 64))])
    with pytest.raises(ControlError, match=r"^scribble.safetensors is an custom .* but the model is NarrowSDXL \("):
        narrow.sample(narrow.make_model("sdxl"), *composed_conds, (1, 8, 8), steps=1)


def test_a_picture_of_two_layers_and_a_mask(model: Any, scribble: Control) -> None:
    """Layers of one network with other pictures and frames are added; a mask leaves the left half of each residual."""
    images = [narrow.picture(1, 8 * H, 8 * W, seed=seed) for seed in (1, 2)]
    layers = [layer_of(scribble, images[0], 0.5), layer_of(at_frames(scribble, "-1"), images[1])]
    (both,) = calls_of(model, compose_controls(*start(), layers), 2)
    alone = [calls_of(model, compose_controls(*start(), [layer]), 2)[0]["residuals"] for layer in layers]
    for found, one, other in zip(both["residuals"], *alone, strict=True):
        assert narrow.relative(found, one + other) <= 1e-6
    mask = torch.zeros(1, 8 * H, 8 * W)
    mask[..., : 4 * W] = 1
    (masked,) = calls_of(model, composed(scribble, images[0], strength=0.5, mask=mask), 2)
    assert narrow.relative(masked["residuals"][0][..., : W // 2], alone[0][0][..., : W // 2]) <= 1e-6
    assert not masked["residuals"][0][..., W // 2 :].any()


@pytest.mark.parametrize(
    ("text", "pictures", "total", "expected"),
    [
        ("spread", 1, 16, (0,)),
        ("spread", 4, 16, (0, 5, 10, 15)),  # AnimateDiff's own examples
        ("spread", 3, 16, (0, 8, 15)),
        (" Spread ", 2, 2, (0, 1)),
        ("0, 8, -1", 3, 16, (0, 8, 15)),
        ("0-3", 4, 4, (0, 1, 2, 3)),
        ("5 - 3; -1", 4, 16, (5, 4, 3, 15)),
        ("-3--1 0", 4, 8, (5, 6, 7, 0)),
        ("-16", 1, 16, (0,)),
    ],
)
def test_frames(text: str, pictures: int, total: int, expected: tuple[int, ...]) -> None:
    assert FrameIndices.parse(text).frames(pictures, total, "a.ckpt") == expected


@pytest.mark.parametrize("text", ["", "0,,1", "two", "1.5", "0-1-2", "9999999", "spread 3"])
def test_frames_that_are_none(text: str) -> None:
    with pytest.raises(ControlError, match=r'^frames of Sparse Frames has ".*" in it, but numbers .*; correct it\.$'):
        FrameIndices.parse(text)


@pytest.mark.parametrize(
    ("text", "pictures", "words"),
    [
        (
            "0, 4",
            2,
            'The frames "0, 4" of a.ckpt name frame 4, but the batch has 4 frames, counted from 0 to 3 or back from -1; correct the number, or '
            "make the latent batch longer.",
        ),
        (
            "3, -1",
            2,
            'The frames "3, -1" of a.ckpt name frame 3 of 4 twice, but each frame can have one picture; name it once.',
        ),
        (
            "0-2",
            1,
            'The image of a.ckpt has 1 picture, but its frames "0-2" are 3 and one picture for each was expected; give 3 pictures, '
            "or name 1 frame in Sparse Frames.",
        ),
        (
            "spread",
            5,
            "The image of a.ckpt has 5 pictures, but the batch has 4 frames and at most one picture for each was expected; give fewer pictures, or "
            "make the latent batch 5 long.",
        ),
    ],
)
def test_frames_that_do_not_fit(text: str, pictures: int, words: str) -> None:
    with pytest.raises(ControlError) as caught:
        FrameIndices.parse(text).frames(pictures, 4, "a.ckpt")
    assert str(caught.value) == words


def test_a_number_of_pictures_that_fits_no_batch(scribble: Control) -> None:
    """Refused by the Apply node already; where the batch decides, it waits for the batch."""
    control = at_frames(scribble, "0, -3--1")
    composed(control, narrow.picture(4, 64, 64))
    with pytest.raises(
        ControlError,
        match=r"has 2 pictures, but its frames .* are 4 and one picture for each was expected; give 4 pictures, or",
    ):
        composed(control, narrow.picture(2, 64, 64))
    composed(at_frames(scribble, "0--1"), narrow.picture(2, 64, 64))


def test_the_node_wants_a_sparsectrl(model: Any, scribble: Control) -> None:
    other = narrow.make_ours(narrow.make_module("sd1"), "SD1")
    with pytest.raises(ControlError) as caught:
        at_frames(other, "0")
    assert str(caught.value) == (
        "control_net of Sparse Frames is test.safetensors, but a SparseCtrl from our Load node was expected; connect one, or remove this node, "
        "which other controls do not need."
    )
    with pytest.raises(ControlError, match="is a control of another node, but"):
        at_frames(narrow.make_stock(narrow.make_module("sd1")), "0")
    twin = at_frames(scribble, "1")
    assert twin.network.control.indices.text == "1"
    assert scribble.network.control.indices.text == "spread"
    assert twin.network.control.patcher is scribble.network.control.patcher
