"""Every file that is no loadable control is refused in one sentence: which file, what was found, what was expected, what to do."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from control_composer.checkpoints import CheckpointError, connected_base, open_control
from control_composer.checkpoints.base import ConnectedBase, check_base
from control_composer.checkpoints.encoder import EncoderHyperparameters
from control_composer.checkpoints.encoder_shapes import check_shapes, in_file
from control_composer.checkpoints.errors import (
    AmbiguousHeadsError,
    BadWeightsError,
    BaseMismatchError,
    IncompleteError,
    RefusedFamilyError,
    UnknownFileError,
    UnreadableFileError,
)
from control_composer.checkpoints.load import load_checkpoint, read_weights
from control_composer.tests.checkpoints.refusals import Save, refusal, some


def test_lora(save: Save) -> None:
    path = save(some("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"), "lora.safetensors")
    assert refusal(path, RefusedFamilyError) == (
        "'lora.safetensors' is a LoRA (it has the key 'lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight'), but a "
        "ControlNet was expected; load it with the stock node 'Load LoRA' and choose a ControlNet file here."
    )


def test_vae(save: Save) -> None:
    path = save(some("encoder.conv_in.weight", "decoder.conv_in.weight"), "vae.safetensors")
    assert refusal(path, RefusedFamilyError) == (
        "'vae.safetensors' is a VAE (it has the key 'encoder.conv_in.weight'), but a ControlNet was expected; load it with the stock "
        "node 'Load VAE' and choose a ControlNet file here."
    )


def test_full_checkpoint(save: Save) -> None:
    names = ("model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.encoder.conv_in.weight")
    assert refusal(save(some(*names), "sd15.safetensors"), RefusedFamilyError) == (
        "'sd15.safetensors' is a full checkpoint (model, text encoder and VAE) without a control in it (it has the key "
        "'model.diffusion_model.input_blocks.0.0.weight'), but a ControlNet was expected; load it with the stock node 'Load Checkpoint' "
        "and choose a ControlNet file here."
    )


def test_full_checkpoint_with_a_control_in_it_loads(weights: dict[str, Tensor], save: Save) -> None:
    control = {f"control_model.{name}": tensor for name, tensor in weights.items()}
    path = save(
        some("model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.encoder.conv_in.weight") | control
    )
    match = open_control(path).match
    assert match.family.name == "a ControlNet (cldm layout)"
    assert all(name.startswith("control_model.") for name in match.names.values())


@pytest.mark.parametrize(("value", "words"), [(float("nan"), "NaN (not a number)"), (float("inf"), "infinity")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_that_are_no_numbers(
    value: float, words: str, dtype: torch.dtype, weights: dict[str, Tensor], save: Save
) -> None:
    weights = {name: tensor.to(dtype) for name, tensor in weights.items()}
    weights["input_blocks.1.0.in_layers.2.weight"].view(-1)[77] = value
    opened = open_control(save(weights))
    with pytest.raises(BadWeightsError) as caught:
        read_weights(opened.checkpoint, opened.match)
    assert str(caught.value) == (
        f"'control.safetensors' holds {words} in its tensor 'input_blocks.1.0.in_layers.2.weight', but finite numbers were expected; "
        "get the file from its source again, since its training or its conversion went wrong."
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_large_finite_weights_are_numbers(dtype: torch.dtype, weights: dict[str, Tensor], save: Save) -> None:
    """Their sum overflows; they do not."""
    weights = {name: tensor.to(dtype) for name, tensor in weights.items()}
    weights["input_blocks.1.0.in_layers.2.weight"].fill_(torch.finfo(dtype).max)
    opened = open_control(save(weights))
    read_weights(opened.checkpoint, opened.match)


def test_integer_weights(weights: dict[str, Tensor], save: Save) -> None:
    opened = open_control(save({name: tensor.to(torch.int8) for name, tensor in weights.items()}))
    with pytest.raises(BadWeightsError, match="holds int8 in its tensor"):
        read_weights(opened.checkpoint, opened.match)


@pytest.mark.parametrize("metadata", [{}, {"num_head_channels": "many"}, {"num_head_channels": "-8"}])
def test_ambiguous_heads(metadata: dict[str, str], weights: dict[str, Tensor], save: Save) -> None:
    assert refusal(save(weights, metadata=metadata), AmbiguousHeadsError) == (
        "'control.safetensors' splits 64/128 channels into a number of attention heads that its shapes cannot tell, but the number "
        "must be the one it was trained with; connect the model that it was trained for, or save it with 'num_head_channels' or "
        "'num_heads' in its safetensors metadata."
    )


def test_heads_that_do_not_divide(weights: dict[str, Tensor], save: Save) -> None:
    text = refusal(save(weights, metadata={"num_head_channels": "48"}), AmbiguousHeadsError)
    assert "is said to have heads of 48 channels (source: metadata), into which 64/128 channels do not divide" in text


def test_unknown_file(save: Save) -> None:
    path = save(some("zero_convs.0.0.weight", "a.weight", "b.weight", "c.weight", "d.weight"), "odd.safetensors")
    assert refusal(path, UnknownFileError) == (
        "'odd.safetensors' is an unknown file whose first keys are 'a.weight', 'b.weight', 'c.weight' and 2 more, but the nearest "
        "kind, a ControlNet (cldm layout), would have 'input_hint_block.0.weight'; check that this is the file you meant, or load it "
        "with the node that its author made for it."
    )


def test_file_without_tensors(save: Save) -> None:
    assert "is an unknown file without any tensor" in refusal(save({}), UnknownFileError)


def test_quantised_weights(weights: dict[str, Tensor], save: Save) -> None:
    for key in ("time_embed.0.scale_weight", "time_embed.2.weight.absmax", "scaled_fp8", "time_embed.0.comfy_quant"):
        assert refusal(save(weights | some(key)), IncompleteError) == (
            f"'control.safetensors' is a ControlNet (cldm layout) with quantised weights (it has the key '{key}'), but plain weights were expected; "
            "choose its float16, bfloat16 or plain float8 version."
        )


def test_dtype_that_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "mx.safetensors"
    header = json.dumps({"a": {"dtype": "F8_E8M0", "shape": [1], "data_offsets": [0, 1]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"0")
    assert refusal(path, UnreadableFileError) == (
        "'mx.safetensors' stores the tensor 'a' as 'F8_E8M0', but float32, float16, bfloat16 or float8 was expected; choose a version of the file in one "
        "of these, or download it again."
    )


def test_names_of_a_diffusers_file_in_messages() -> None:
    names = {
        "input_blocks.1.0.in_layers.2.weight": "down_blocks.0.resnets.0.conv1.weight",
        "middle_block.1.norm.bias": "mid_block.attentions.0.norm.bias",
        "same.weight": "same.weight",
    }
    assert in_file("input_blocks.1.0.in_layers.2.weight", names) == "down_blocks.0.resnets.0.conv1.weight"
    assert in_file("input_blocks.1.0.in_layers.2.bias", names) == "down_blocks.0.resnets.0.conv1.bias"
    assert in_file("middle_block.1.norm.weight", names) == "mid_block.attentions.0.norm.weight"
    # Where no neighbour tells, the network's own.
    assert in_file("label_emb.0.0.weight", names) == "label_emb.0.0.weight"
    assert in_file("same.bias", names) == "same.bias"
    assert in_file("a", {}) == "a"
    shapes = {ours: (1,) for ours in names}
    with pytest.raises(IncompleteError, match=r"whose tensor 'down_blocks\.0\.resnets\.0\.conv1\.weight' has"):
        check_shapes(Path("a"), "ControlNet", dict.fromkeys(names, (2,)), shapes, names)
    with pytest.raises(IncompleteError) as caught:
        wanted = ("input_blocks.1.0.in_layers.2.weight", "input_blocks.1.0.in_layers.2.bias", "same.weight")
        check_shapes(Path("a"), "ControlNet", dict.fromkeys(wanted, (1,)), shapes, names)
    assert "lacks 'down_blocks.0.resnets.0.conv1.bias' and has 'mid_block.attentions.0.norm.bias' instead" in str(
        caught.value
    )


def test_nearest_of_a_damaged_diffusers_file(save: Save) -> None:
    text = refusal(save(some("conv_in.weight", "controlnet_cond_embedding.conv_in.weight")), UnknownFileError)
    assert "the nearest kind, a ControlNet (diffusers layout), would have 'controlnet_mid_block.weight';" in text


def test_missing_tensor(weights: dict[str, Tensor], save: Save) -> None:
    del weights["middle_block_out.0.bias"]
    assert refusal(save(weights), IncompleteError) == (
        "'control.safetensors' looks like a ControlNet (cldm layout) and lacks 'middle_block_out.0.bias', but all tensors of a "
        "ControlNet (cldm layout) were expected; download it again, or use the node that its author made for it."
    )


def test_missing_tensor_that_tells_a_hyperparameter(weights: dict[str, Tensor], save: Save) -> None:
    del weights["input_blocks.0.0.weight"]
    assert "lacks 'input_blocks.0.0.weight'" in refusal(save(weights), IncompleteError)


def test_surplus_tensor(weights: dict[str, Tensor], save: Save) -> None:
    text = refusal(save(weights | some("input_blocks.1.2.extra.weight")), IncompleteError)
    assert "with tensors too many, 'input_blocks.1.2.extra.weight', but" in text


def test_tensor_of_another_shape(weights: dict[str, Tensor], save: Save) -> None:
    # The wide hint network of some union files.
    weights["input_hint_block.2.weight"] = torch.zeros(32, 16, 3, 3)
    text = refusal(save(weights), IncompleteError)
    assert (
        "whose tensor 'input_hint_block.2.weight' has the shape [32, 16, 3, 3], but [16, 16, 3, 3] follows from" in text
    )


def test_base_of_another_model(weights: dict[str, Tensor], save: Save) -> None:
    sd1 = ConnectedBase("SD1", 320, (1, 2, 4, 4), (2, 2, 2, 2), 768, None, 8, -1)
    with pytest.raises(BaseMismatchError) as caught:
        open_control(save(weights), sd1)
    assert str(caught.value) == (
        "'control.safetensors' is a control for the base custom (64 channels x 1-1-2, text of 64), but the connected model is of the "
        "base SD1; connect a model that it was made for, or choose a control made for the connected one."
    )


def test_sdxl_control_on_an_sd1_model_and_the_reverse() -> None:
    sd1 = EncoderHyperparameters(4, 320, 3, (2, 2, 2, 2), (1, 2, 4, 4), (1,) * 6 + (-1, -1), 1, 768, False, None)
    sdxl = EncoderHyperparameters(4, 320, 3, (2, 2, 2), (1, 2, 4), (-1, -1, 2, 2, 10, 10), 10, 2048, True, 2816)
    on_sd1 = ConnectedBase("SD1", 320, (1, 2, 4, 4), (2, 2, 2, 2), 768, None, 8, -1)
    on_sdxl = ConnectedBase("SDXL", 320, (1, 2, 4), (2, 2, 2), 2048, 2816, -1, 64)
    check_base(Path("a.pth"), sd1, on_sd1)
    check_base(Path("b.pth"), sdxl, on_sdxl)
    # SDXL's small control reads no text, so it fits by the rest.
    check_base(Path("b.pth"), replace(sdxl, context_dim=None), on_sdxl)
    # What it does not read cannot be the wrong one: a pooled vector, as of an SD2 unCLIP model for SD2's controls.
    check_base(Path("a.pth"), sd1, replace(on_sd1, adm_in_channels=2048))
    with pytest.raises(BaseMismatchError) as caught:
        check_base(Path("canny_xl.safetensors"), sdxl, on_sd1)
    assert str(caught.value) == (
        "'canny_xl.safetensors' is a control for the base SDXL, but the connected model is of the base SD1; connect a model that it "
        "was made for, or choose a control made for the connected one."
    )
    with pytest.raises(BaseMismatchError, match="for the base SD1, but the connected model is of the base SDXL; "):
        check_base(Path("canny.pth"), sd1, on_sdxl)


def test_model_without_a_unet(weights: dict[str, Tensor], save: Save) -> None:
    class Flux:
        unet_config: ClassVar = {"image_model": "flux", "context_in_dim": 4096}

    model = SimpleNamespace(model=SimpleNamespace(model_config=Flux()))
    with pytest.raises(BaseMismatchError, match="but the connected model is of the base Flux; "):
        open_control(save(weights), connected_base(model))


def test_errors_survive_pickling(save: Save) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_control(save({}))
    twin = pickle.loads(pickle.dumps(caught.value))
    assert type(twin) is type(caught.value) and str(twin) == str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float8_e4m3fn])
def test_numbers_too_large_for_the_dtype_that_the_host_wants(
    dtype: torch.dtype, weights: dict[str, Tensor], save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would become infinite, and the picture black, without a word."""
    management = pytest.importorskip("comfy.model_management")
    monkeypatch.setattr(management, "unet_dtype", lambda *_, **__: dtype)
    path = save(weights)
    load_checkpoint(path)
    weights["zero_convs.1.0.weight"][3, 2] = -70000.0
    path = save(weights)
    with pytest.raises(BadWeightsError) as refused:
        load_checkpoint(path)
    highest = {torch.float16: "65504", torch.float8_e4m3fn: "448"}[dtype]
    assert str(refused.value) == (
        f"'control.safetensors' holds -70000 in its tensor 'zero_convs.1.0.weight', but at most {highest} was expected, the largest "
        f"{str(dtype).removeprefix('torch.')}, in which the host keeps its weights; start the host with --fp32-unet."
    )
