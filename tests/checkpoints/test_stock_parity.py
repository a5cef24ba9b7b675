"""The network that our loader builds is the stock loader's: same tensors, dtypes, heads, devices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("comfy")

import comfy.cli_args
import comfy.controlnet

from control_composer.checkpoints import Loaded, load_checkpoint, open_control
from control_composer.checkpoints.base import ConnectedBase
from control_composer.checkpoints.diffusers_layout import cldm_names
from control_composer.checkpoints.encoder import (
    NO_ATTENTION,
    EncoderHyperparameters,
    expected_shapes,
)
from control_composer.checkpoints.heads import Heads

# diffusers/controlnet-*-sdxl-1.0-small: the smallest real architecture that the stock loader knows in diffusers layout.
SDXL_SMALL = EncoderHyperparameters(
    in_channels=4,
    model_channels=320,
    hint_channels=3,
    num_res_blocks=(2, 2, 2),
    channel_mult=(1, 2, 4),
    transformer_depth=(NO_ATTENTION,) * 6,
    transformer_depth_middle=0,
    context_dim=None,
    use_linear_in_transformer=True,
    adm_in_channels=2816,
)


def assert_same(loaded: Loaded, stock: Any) -> None:
    ours, theirs = loaded.built.module, stock.control_model
    assert type(ours) is type(theirs)
    state, expected = ours.state_dict(), theirs.state_dict()
    assert list(state) == list(expected)
    for name, tensor in expected.items():
        assert state[name].dtype == tensor.dtype, name
        assert torch.equal(state[name].double(), tensor.double()), name
    assert loaded.built.manual_cast_dtype == stock.manual_cast_dtype
    assert loaded.built.load_device == stock.load_device
    assert ours.dtype == theirs.dtype
    for (name, mine), (_, other) in zip(ours.named_modules(), theirs.named_modules(), strict=True):
        assert type(mine) is type(other), name
        for fact in ("heads", "dim_head", "attn_precision"):
            assert getattr(mine, fact, None) == getattr(other, fact, None), (name, fact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("prefix", ["", "control_model."])
def test_cldm_file(prefix: str, dtype: torch.dtype, weights: dict[str, Tensor], save: Callable[..., Path]) -> None:
    path = save({prefix + name: tensor.to(dtype) for name, tensor in weights.items()})
    assert_same(load_checkpoint(path), comfy.controlnet.load_controlnet(str(path)))


@pytest.mark.parametrize("option", ["fp16_unet", "bf16_unet", "fp8_e4m3fn_unet", "fp64_unet"])
def test_dtype_that_the_user_told_the_host(
    option: str, weights: dict[str, Tensor], save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half precision on a CPU means weights in half, arithmetic in single: the manual cast."""
    monkeypatch.setattr(comfy.cli_args.args, option, True)
    path = save(weights)
    loaded = load_checkpoint(path)
    assert (loaded.built.manual_cast_dtype is None) == (option == "fp64_unet")
    assert_same(loaded, comfy.controlnet.load_controlnet(str(path)))


@pytest.mark.parametrize("ending", ["pth", "pt", "ckpt", "bin"])
def test_torch_file(ending: str, weights: dict[str, Tensor], tmp_path: Path, save: Callable[..., Path]) -> None:
    path = tmp_path / f"control.{ending}"
    torch.save({"state_dict": {f"control_model.{name}": value for name, value in weights.items()}}, path)
    safe = save(weights)
    expected = comfy.controlnet.load_controlnet(str(path))
    # No metadata in a pickle: the heads of this narrow network come from the connected model.
    loaded = open_control(path, connected_like(load_checkpoint(safe))).load()
    assert loaded.match.heads == Heads(count=None, width=64, source="model")
    assert_same(loaded, expected)


def connected_like(loaded: Loaded) -> Any:
    net = loaded.match.hyperparameters
    return ConnectedBase(
        name="narrow",
        model_channels=net.model_channels,
        channel_mult=net.channel_mult,
        num_res_blocks=net.num_res_blocks,
        context_dim=net.context_dim,
        adm_in_channels=net.adm_in_channels,
        num_heads=-1,
        num_head_channels=64,
    )


def test_diffusers_file(save: Callable[..., Path]) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randn(1, generator=generator).half().expand(shape).clone()
        for name, shape in expected_shapes(SDXL_SMALL).items()
    }
    path = save(in_diffusers_names(tensors), metadata={})
    loaded = load_checkpoint(path)
    assert loaded.match.family.name == "a ControlNet (diffusers layout)"
    assert loaded.match.base == "SDXL"
    assert loaded.match.hyperparameters == SDXL_SMALL
    assert_same(loaded, comfy.controlnet.load_controlnet(str(path)))


def in_diffusers_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    diffusers = pytest.importorskip("diffusers")
    with torch.device("meta"):
        net = diffusers.ControlNetModel(
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D",) * 3,
            transformer_layers_per_block=(0, 0, 0),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )
    names = cldm_names(net.state_dict())
    return {theirs: tensors[ours] for theirs, ours in names.items()}
