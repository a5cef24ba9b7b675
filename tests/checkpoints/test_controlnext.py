"""ControlNeXt: shapes -> numbers -> the network, and the same map as the repository's networks give."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("comfy")
pytest.importorskip("diffusers")

import diffusers

from control_composer.checkpoints import load_checkpoint, open_control
from control_composer.checkpoints.base import ConnectedBase
from control_composer.checkpoints.controlnext import ControlNeXtHyperparameters, controlnext_shapes
from control_composer.checkpoints.errors import BaseMismatchError, IncompleteError, RefusedFamilyError
from control_composer.tests import narrow
from control_composer.tests.checkpoints.controlnext_reference import NARROW, REAL, Reference, reference

Save = Callable[..., Path]
BASES = {"SD1.5": "SD1", "SDXL": "SDXL", "SDXL July": "SDXL", "August": "SD1 or SDXL"}
MODELS = {
    "SD1": ConnectedBase("SD1", 32, (1, 2, 4, 4), (2, 2, 2, 2), 24, None, 4, -1),
    "SD2": ConnectedBase("SD2", 32, (1, 2, 4, 4), (2, 2, 2, 2), 1024, None, 4, -1),
    "SDXL": ConnectedBase("SDXL", 32, (1, 2, 4), (2, 2, 2), 40, 2816, -1, 32),
    "DiT": ConnectedBase("Flux", 0, (), (), None, None, 0, 0),
    "wide SD1": ConnectedBase("custom", 64, (1, 2, 4, 4), (2, 2, 2, 2), 24, None, 4, -1),
}


def numbers(release: str) -> ControlNeXtHyperparameters:
    settings: dict[str, Any] = NARROW[release]
    return ControlNeXtHyperparameters(
        release=release,  # type: ignore[arg-type]
        hint_channels=3,
        embedding=settings.get("embedding", ()),
        widths=settings["widths"],
        time_features=32,
        time_channels=48,
        out_channels=settings["out"],
    )


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
@pytest.mark.parametrize("release", NARROW)
@torch.no_grad()
def test_the_same_numbers_and_the_same_map(release: str, ending: str, save: Save) -> None:
    net = reference(release)
    loaded = load_checkpoint(save(dict(net.state_dict()), f"controlnet.{ending}", metadata={}))
    assert loaded.match.hyperparameters == numbers(release)
    assert (loaded.match.family.name, loaded.match.base) == ("a ControlNeXt", BASES[release])
    module = loaded.built.module
    hint = torch.rand(2, 3, 96, 160, generator=torch.Generator().manual_seed(1))
    times = torch.tensor([981.0, 7.0])
    found, (expected, scale) = module(module.embed(hint), times), net(hint, times)
    assert found.shape == expected.shape
    assert narrow.relative(found, expected) <= 1e-5
    assert float(module.factor(found)) == pytest.approx(float(scale))
    assert not torch.allclose(found, module(module.embed(hint), times.flip(0)), rtol=1e-2)  # it reads the timestep


@pytest.mark.parametrize("release", REAL)
def test_real_widths(release: str) -> None:
    """Every tensor of the networks that were published, and no other."""
    with torch.device("meta"):
        net = Reference(release, **REAL[release])  # type: ignore[arg-type]
    settings: dict[str, Any] = REAL[release]
    ours = ControlNeXtHyperparameters(
        release,
        3,
        settings.get("embedding", ()),
        settings["widths"],
        128,
        256,
        settings["out"],  # type: ignore[arg-type]
    )
    assert controlnext_shapes(ours) == {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}


@pytest.mark.parametrize("release", NARROW)
def test_the_models_that_it_fits(release: str, save: Save) -> None:
    path = save(dict(reference(release).state_dict()))
    for name, model in MODELS.items():
        if name in BASES[release].split(" or "):
            assert open_control(path, model).match.base == name
            continue
        with pytest.raises(BaseMismatchError) as refused:
            open_control(path, model)
        assert str(refused.value) == (
            f"'control.safetensors' is a control for the base {BASES[release]}, but the connected model is of the base {model.name}; connect a "
            "model that it was made for, or choose a control made for the connected one."
        )


def test_what_the_description_says(save: Save) -> None:
    match = open_control(save({name: x.half() for name, x in reference("August").state_dict().items()})).match
    assert match.describe() == (
        "family: a ControlNeXt\nbase: SD1 or SDXL\nhint: 3 channels\nnot told by its shapes: whether it is for SD1.5, SDXL or video "
        "(ControlNeXt-SVD-v2, which does not work here)\nparameters: 58.4 k\nweights in the file: float16"
    )


def test_missing_and_surplus_tensors(save: Save) -> None:
    weights = dict(reference("August").state_dict())
    for name in ("mid_convs.0.3.bias", "down_res.1.conv1.weight", "embedding.6.weight"):
        with pytest.raises(IncompleteError) as refused:
            open_control(save({other: x for other, x in weights.items() if other != name}))
        assert str(refused.value) == (
            f"'control.safetensors' looks like a ControlNeXt and lacks '{name}', but all tensors of a ControlNeXt were expected; download it "
            "again, or use the node that its author made for it."
        )
    with pytest.raises(IncompleteError) as refused:
        open_control(save({**weights, "down_res.1.more": torch.zeros(1)}))
    assert str(refused.value) == (
        "'control.safetensors' is a ControlNeXt with tensors too many, 'down_res.1.more', but exactly the tensors of such a network were "
        "expected, since the others would change the picture; use the node that its author made for it."
    )


def test_wrong_shapes(save: Save) -> None:
    weights = dict(reference("August").state_dict())
    with pytest.raises(IncompleteError) as refused:
        open_control(save({**weights, "down_sample.0.conv.weight": torch.zeros(16, 16, 1, 1)}))
    assert str(refused.value) == (
        "'control.safetensors' is a ControlNeXt whose tensor 'down_sample.0.conv.weight' has the shape [16, 16, 1, 1], but [16, 16, 3, 3] "
        "follows from its other tensors; download it again, or ask its author for a file of the ordinary architecture."
    )
    with pytest.raises(
        IncompleteError, match="is a ControlNeXt with a width of 12, but a multiple of 8 was expected there; "
    ):
        open_control(save(shaped({"embedding": (8, 6, 16), "widths": (16, 12), "out": 32, "time": (32, 48)})))


def shaped(settings: dict[str, Any]) -> dict[str, torch.Tensor]:
    net = ControlNeXtHyperparameters(
        "August", 3, settings["embedding"], settings["widths"], *settings["time"], settings["out"]
    )
    return {name: torch.zeros(shape) for name, shape in controlnext_shapes(net).items()}


def test_an_arrangement_that_was_never_released(save: Save) -> None:
    weights = {name: x for name, x in reference("SD1.5").state_dict().items() if not name.startswith("down_res.2")}
    with pytest.raises(IncompleteError) as refused:
        open_control(save(weights))
    assert str(refused.value) == (
        "'control.safetensors' is a ControlNeXt of an arrangement that was never released, with 2 residual blocks, but 3 or, with a hint "
        "embedding, 2 were expected, and a learned scale only without one; use the node that its author made for it."
    )


def test_the_video_network_is_refused(save: Save) -> None:
    weights = dict(reference("SDXL July").state_dict()) | {"scale": torch.tensor(1.0)}
    with pytest.raises(RefusedFamilyError) as refused:
        open_control(save(weights))
    assert str(refused.value) == (
        "'control.safetensors' is a ControlNeXt for Stable Video Diffusion (it has the key 'mid_convs.0.0.weight'), but a ControlNet was "
        "expected; use the nodes made for it, or choose a ControlNeXt for SD1.5 or SDXL here."
    )


SD1 = {"cross_attention_dim": 768, "attention_head_dim": 8}
SDXL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
}


@pytest.mark.parametrize(("config", "dtype", "megabytes"), [(SD1, torch.float32, 49.6), (SDXL, torch.float16, 205)])
def test_published_unet_weights_are_refused_with_the_name_of_their_node(
    config: dict[str, Any], dtype: torch.dtype, megabytes: float, save: Save
) -> None:
    """The parameters that the repository's training changes, of the sizes that were published; no data is needed to refuse them."""
    with torch.device("meta"):
        whole = diffusers.UNet2DConditionModel(**config).state_dict()
    names = [name for name in whole if "attn2" in name and "to_out" in name]
    size = sum(math.prod(whole[name].shape) for name in names) * dtype.itemsize
    assert size / 1e6 == pytest.approx(megabytes, rel=0.002)
    with pytest.raises(RefusedFamilyError) as refused:
        open_control(save({name: torch.zeros(1) for name in names}, "unet.safetensors"))
    assert str(refused.value) == (
        f"'unet.safetensors' is a file of UNet weights for a ControlNeXt (it has the key '{sorted(names)[0]}'), but a ControlNet was expected; load it "
        "with the node 'Apply ControlNeXt Weights (Control Composer)', and choose the small file that it came with here."
    )
    with pytest.raises(RefusedFamilyError, match="is a diffusion model without a control in it"):
        open_control(save({name: torch.zeros(1) for name in whole}, "whole.safetensors"))
