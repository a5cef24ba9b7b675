"""Controls that the host's own loader reads: found by their names, loaded once, sampled as the stock nodes sample them."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

pytest.importorskip("comfy")

import comfy.controlnet
import comfy.ldm.flux.controlnet
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.supported_models

from control_composer.checkpoints import open_control
from control_composer.checkpoints.base import ConnectedBase
from control_composer.checkpoints.errors import BaseMismatchError, HostLoaderError, IncompleteError
from control_composer.checkpoints.families import FAMILIES
from control_composer.control import Control, ControlError, ForeignControl
from control_composer.control.apply import attach, make_layer
from control_composer.nodes.load import NETWORKS, load_source
from control_composer.tests import narrow

Save = Callable[..., Path]
FLUX: dict[str, Any] = {
    "in_channels": 16,
    "out_channels": 16,
    "vec_in_dim": 24,
    "context_in_dim": 32,
    "hidden_size": 128,
    "mlp_ratio": 4.0,
    "num_heads": 1,
    "depth": 2,
    "depth_single_blocks": 2,
    "axes_dim": [16, 56, 56],
    "theta": 10000,
    "patch_size": 2,
    "qkv_bias": True,
    "guidance_embed": True,
    "txt_ids_dims": [],
}


class FluxNarrow(comfy.supported_models.Flux):
    unet_config: ClassVar = {"image_model": "flux", **FLUX}


@pytest.fixture(scope="module")
def model() -> Any:
    config = FluxNarrow(dict(FluxNarrow.unet_config))
    config.set_inference_dtype(torch.float32, None)
    made = config.get_model({}, "")
    narrow.fill(made.diffusion_model, 1)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(made, load_device=device, offload_device=torch.device("cpu"))


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    """A control in XLabs' layout, whose hint is a picture."""
    net = comfy.ldm.flux.controlnet.ControlNetFlux(
        operations=comfy.ops.disable_weight_init, dtype=torch.float32, **{**FLUX, "depth_single_blocks": 0}
    )
    narrow.fill(net, 2)
    return {name.replace("_norm.weight", "_norm.scale"): tensor for name, tensor in net.state_dict().items()}


def conditioning(seed: int) -> list[list[Any]]:
    generator = torch.Generator().manual_seed(seed)
    pooled = torch.randn(1, FLUX["vec_in_dim"], generator=generator)
    return [[torch.randn(1, 7, FLUX["context_in_dim"], generator=generator), {"pooled_output": pooled}]]


def sample(model: Any, positive: Any, negative: Any) -> Tensor:
    return narrow.sample(model, positive, negative, (2, 8, 12), steps=3, cfg=2.0, scheduler="simple")


def test_same_latents_as_the_stock_nodes(model: Any, tensors: dict[str, Tensor], save: Save) -> None:
    path, hint = save(tensors, "flux.safetensors"), narrow.picture(1, 64, 96)
    positive, negative = conditioning(1), conditioning(2)
    plain = sample(model, positive, negative)
    stock = comfy.controlnet.load_controlnet(str(path))
    expected = sample(model, *narrow.stock_apply(positive, negative, stock, hint, 0.7, 0.0, 0.8))
    assert narrow.relative(expected, plain) > 1e-2

    source, description = load_source(path, model, "auto")
    assert description.startswith(
        "family: a control for Flux (XLabs)\nbase: Flux\nhint: 3 channels\nloaded and computed by: the host, whose residuals are weighted "
        "as they come\n"
    )
    control = Control.unbound(source)
    found = sample(model, *narrow.stock_apply(positive, negative, control, hint, 0.7, 0.0, 0.8))
    assert narrow.relative(found, expected) <= 1e-5
    layer = make_layer(control, hint.movedim(-1, 1), strength=0.7, end_percent=0.8)
    attached = attach((positive, negative), [layer])
    assert narrow.relative(sample(model, *attached), expected) <= 1e-5
