"""The UNet weights of a ControlNeXt on a real model: what they change, with what they add up, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("comfy")

import comfy.lora
import comfy.utils
import folder_paths
import safetensors.torch
import torch
from torch import Tensor

from control_composer.checkpoints.errors import (
    AmbiguousWeightsError,
    BadWeightsError,
    BaseMismatchError,
    RefusedFamilyError,
)
from control_composer.nodes.load import ControlComposerLoad, load_source
from control_composer.nodes.model import WEIGHTS, ControlComposerControlNeXtModel, carried, weight_files
from control_composer.tests import narrow
from control_composer.tests.control.case_controlnext import random_controlnext

PREFIX = "diffusion_model."
SIZE = (1, 8, 8)


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The host lists this test's folders, and only them."""
    for name in ("controlnet", "diffusion_models"):
        (tmp_path / name).mkdir()
        monkeypatch.setitem(
            folder_paths.folder_names_and_paths, name, ([str(tmp_path / name)], {".safetensors", ".bin"})
        )
    folder_paths.filename_list_cache.clear()
    yield tmp_path
    folder_paths.filename_list_cache.clear()


def trained(model: Any, names: str = "diffusers", size: float = 0.05, seed: int = 4) -> dict[str, Tensor]:
    """What training added to every attn2.to_out of a model, in diffusers' names or the host's."""
    generator = torch.Generator().manual_seed(seed)
    state = model.model.diffusion_model.state_dict()
    found = {}
    for theirs, ours in comfy.utils.unet_to_diffusers(model.model.model_config.unet_config).items():
        if "attn2.to_out" in ours and ours in state:
            noise = torch.randn(state[ours].shape, generator=generator) * float(state[ours].std()) * size
            found[theirs if names == "diffusers" else ours] = noise
    return found


def plus(model: Any, differences: dict[str, Tensor]) -> dict[str, Tensor]:
    """The trained weights themselves."""
    names = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    state = model.model.diffusion_model.state_dict()
    return {name: state[names.get(name, name)] + tensor for name, tensor in differences.items()}


def save(folder: Path, tensors: dict[str, Tensor], name: str = "unet.safetensors") -> str:
    if name.endswith(".bin"):
        torch.save(tensors, folder / name)
    else:
        safetensors.torch.save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / name)
    folder_paths.filename_list_cache.clear()
    return name


def applied(model: Any, name: str = "unet.safetensors", strength: float = 1.0, **more: Any) -> Any:
    return ControlComposerControlNeXtModel.execute(model, name, strength, **more).args[0]


def weights_of(model: Any, some: str = "to_out") -> dict[str, Tensor]:
    """What the host samples with: the weights with such names, with their patches."""
    state = {}
    for key, (weight, *patches) in model.get_key_patches(PREFIX).items():
        if some not in key:
            continue
        copied = weight[1](weight[0].detach().clone().float(), inplace=True)
        state[key.removeprefix(PREFIX)] = comfy.lora.calculate_weight(patches, copied, key)
    return state


def lora(model: Any) -> Any:
    """The model with a patch on one of the same weights, as Load LoRA makes it."""
    key = "input_blocks.1.1.transformer_blocks.0.attn2.to_out.0.weight"
    patched = model.clone()
    shape = model.model.diffusion_model.state_dict()[key].shape
    change = torch.randn(shape, generator=torch.Generator().manual_seed(6)) * 0.05
    patched.add_patches({PREFIX + key: (change,)}, 0.5)
    return patched


@pytest.mark.parametrize("names", ["diffusers", "host"])
@pytest.mark.parametrize("holds", ["weights", "differences"])
def test_the_trained_weights(holds: str, names: str, folders: Path) -> None:
    """Told by comparison with the model; the model itself stays as it is."""
    model = narrow.make_model("sd1")
    before = {key: x.clone() for key, x in weights_of(model, "").items()}
    differences = trained(model, names)
    save(folders / "controlnet", plus(model, differences) if holds == "weights" else differences)
    patched = applied(model)
    assert [(one.weights.holds, one.strength) for one in carried(patched)] == [(holds, 1.0)]
    map_ = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    changed = {map_.get(name, name): tensor for name, tensor in differences.items()}
    assert len(changed) == 32  # weight and bias of the 16 attentions of an SD1
    for key, weight in weights_of(patched, "").items():
        expected = before[key] + changed.get(key, 0.0)
        assert narrow.relative(weight, expected) <= 1e-6, key
        assert torch.equal(before[key], weights_of_one(model, key)), key
    half = weights_of(applied(model, strength=0.5))
    assert all(narrow.relative(half[key], before[key] + 0.5 * x) <= 1e-6 for key, x in changed.items())


def weights_of_one(model: Any, key: str) -> Tensor:
    weight: Tensor = model.model.diffusion_model.state_dict()[key]
    return weight


def test_they_add_up_with_loras_in_either_order(folders: Path) -> None:
    model = narrow.make_model("sd1")
    save(folders / "controlnet", plus(model, trained(model)))
    first, last = weights_of(lora(applied(model))), weights_of(applied(lora(model)))
    assert all(narrow.relative(first[key], last[key]) <= 1e-6 for key in first)
    without = weights_of(applied(model))
    assert any(not torch.equal(first[key], without[key]) for key in first)


def test_pictures_follow_and_are_undone(folders: Path) -> None:
    """Through the host's sampler: as a model with these weights, and afterwards the model is what it was."""
    model = narrow.make_model("sd1")
    differences = trained(model, size=0.5)
    save(folders / "diffusion_models", differences, "unet.bin")
    patched = applied(model, "unet.bin")
    conds = narrow.conditioning("sd1", 10), narrow.conditioning("sd1", 11)
    plain = narrow.sample(model, *conds, SIZE, steps=2)
    found = narrow.sample(patched, *conds, SIZE, steps=2)
    again = narrow.sample(model, *conds, SIZE, steps=2)
    whole = narrow.make_model("sd1")
    state = whole.model.diffusion_model.state_dict()
    state |= plus_host(whole, differences)
    whole.model.diffusion_model.load_state_dict(state)
    expected = narrow.sample(whole, *conds, SIZE, steps=2)
    assert narrow.relative(found, expected) <= 1e-5
    assert narrow.relative(plain, expected) > 1e-3
    assert torch.equal(plain, again)


def plus_host(model: Any, differences: dict[str, Tensor]) -> dict[str, Tensor]:
    names = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    return {names[name]: tensor for name, tensor in plus(model, differences).items()}


def test_what_cannot_be_told_is_asked_for(folders: Path) -> None:
    model = narrow.make_model("sd1")
    halves = {name: 0.5 * tensor for name, tensor in plus(model, trained(model)).items()}
    name = save(folders / "controlnet", halves)
    with pytest.raises(AmbiguousWeightsError) as refused:
        applied(model, name)
    assert str(refused.value) == (
        "'unet.safetensors' has 50% of the connected model's weights in it, but nearly all (weights) or nearly nothing (differences to "
        "weights) was expected; set 'holds' to weights or differences, as its author says, or connect a model nearer to the one that it was "
        "trained from."
    )
    key = next(iter(comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)[one] for one in halves))
    before = weights_of_one(model, key)
    for holds, factor in (("weights", 0.5), ("differences", 1.5)):
        found = weights_of(applied(model, name, holds=holds))[key]
        assert narrow.relative(found, factor * before) <= 0.2
        assert narrow.relative(found, before) > 0.2


def test_one_copy_for_one_file_and_model(folders: Path) -> None:
    model = narrow.make_model("sd1")
    save(folders / "controlnet", plus(model, trained(model)))
    kept = [applied(model), applied(model), applied(lora(model), strength=0.3)]
    assert len({id(carried(one)[0].weights) for one in kept}) == 1
    assert len(WEIGHTS) == 1
    other = applied(narrow.make_model("sd1", seed=1), holds="weights")
    assert carried(other)[0].weights is not carried(kept[0])[0].weights
    assert carried(applied(model, strength=0.0)) == ()


def test_files_of_all_folders(folders: Path) -> None:
    model = narrow.make_model("sd1")
    save(folders / "diffusion_models", trained(model, seed=1))
    assert weight_files() == ["unet.safetensors"]
    mark = ControlComposerControlNeXtModel.fingerprint_inputs(unet_name="unet.safetensors")
    save(folders / "controlnet", trained(model, seed=2))
    save(folders / "controlnet", trained(model), "other.safetensors")
    assert weight_files() == ["other.safetensors", "unet.safetensors"]
    assert ControlComposerControlNeXtModel.fingerprint_inputs(unet_name="unet.safetensors") != mark
    assert ControlComposerControlNeXtModel.fingerprint_inputs(unet_name="gone.safetensors") == "gone.safetensors"
    found = carried(applied(model))[0].weights.differences
    expected = trained(model, "host", seed=2)
    assert all(torch.equal(found[PREFIX + key], tensor) for key, tensor in expected.items())


def refusal(model: Any, name: str, error: type[Exception]) -> str:
    with pytest.raises(error) as refused:
        applied(model, name)
    return str(refused.value)


def test_a_model_of_another_base_is_refused(folders: Path) -> None:
    save(folders / "controlnet", trained(narrow.make_model("sd1")))
    assert refusal(narrow.make_model("sdxl"), "unet.safetensors", BaseMismatchError) == (
        "'unet.safetensors' changes the weight 'down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0.bias' of the shape [32], but the "
        "connected model of the base custom (32 channels x 1-2-4, text of 40, pooled vector of 2816) has no such weight; connect a model that "
        "it was made for, or choose the weights made for the connected one."
    )


def test_other_files_are_refused(folders: Path) -> None:
    model = narrow.make_model("sd1")
    folder = folders / "controlnet"
    save(folder, random_controlnet(), "controlnet.safetensors")
    assert refusal(model, "controlnet.safetensors", RefusedFamilyError) == (
        "'controlnet.safetensors' is a ControlNeXt, but the UNet weights of a ControlNeXt were expected; load it with the node 'Load "
        "ControlNet (Control Composer)', and choose the larger of the two files of a ControlNeXt here."
    )
    save(folder, {"unet.down_blocks.0.attn2.to_out.0.lora_A.weight": torch.zeros(1)}, "lora.safetensors")
    assert refusal(model, "lora.safetensors", RefusedFamilyError) == (
        "'lora.safetensors' is a LoRA, but the UNet weights of a ControlNeXt were expected; load it with the stock node 'Load LoRA', and "
        "choose the larger of the two files of a ControlNeXt here."
    )
    save(folder, {"something": torch.zeros(1)}, "unknown.safetensors")
    assert refusal(model, "unknown.safetensors", RefusedFamilyError) == (
        "'unknown.safetensors' is an unknown file whose first keys are 'something', but the UNet weights of a ControlNeXt were expected; choose "
        "the larger of the two files of a ControlNeXt here."
    )
    bad = trained(model)
    key = next(iter(bad))
    bad[key].view(-1)[0] = float("nan")
    save(folder, bad, "bad.safetensors")
    assert refusal(model, "bad.safetensors", BadWeightsError) == (
        f"'bad.safetensors' holds NaN (not a number) in its tensor '{key}', but finite numbers were expected; get the file from its source "
        "again, since its training or its conversion went wrong."
    )


def random_controlnet() -> dict[str, Tensor]:
    return random_controlnext("August")


def test_load_controlnet_says_whether_they_are_there(folders: Path) -> None:
    model = narrow.make_model("sd1")
    save(folders / "controlnet", random_controlnet(), "controlnet.safetensors")
    save(folders / "controlnet", trained(model))
    path = folders / "controlnet" / "controlnet.safetensors"
    node = "Apply ControlNeXt Weights (Control Composer)"

    def said(connected: Any) -> list[str]:
        lines: list[str] = ControlComposerLoad.execute("controlnet.safetensors", model=connected).args[1].split("\n")
        return [lines[1], lines[-1]]

    kept, _ = load_source(path, None, "auto")
    assert said(None) == ["base: SD1 or SDXL", f"needs its UNet weights, in a second file: {node}"]
    assert said(model) == ["base: SD1", f"needs its UNet weights, absent from the connected model: {node}"]
    assert said(lora(applied(model, strength=0.8))) == [
        "base: SD1",
        "UNet weights in the connected model: unet.safetensors at strength 0.8",
    ]
    assert said(narrow.make_model("sdxl"))[0] == "base: SDXL"
    again, _ = load_source(path, model, "auto")
    assert kept.module is again.module  # type: ignore[union-attr]
    with pytest.raises(RefusedFamilyError) as refused:
        ControlComposerLoad.execute("unet.safetensors")
    assert str(refused.value).endswith(
        f"but a ControlNet was expected; load it with the node '{node}', and choose the small file that it came with here."
    )
