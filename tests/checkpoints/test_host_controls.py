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


def test_one_network_for_one_file_as_long_as_a_layer_has_it(tensors: dict[str, Tensor], save: Save) -> None:
    path = save(tensors, "flux.safetensors")
    first, _ = load_source(path, None, "auto")
    second, _ = load_source(path, None, "auto")
    assert isinstance(first, ForeignControl) and isinstance(second, ForeignControl)
    assert first.control is not second.control
    assert first.control.control_model is second.control.control_model
    gc.collect()
    before, network = len(NETWORKS), first.control.control_model
    layer = make_layer(Control.unbound(first), torch.rand(1, 3, 64, 64))
    del first, second
    gc.collect()
    again, _ = load_source(path, None, "auto")
    assert isinstance(again, ForeignControl) and again.control.control_model is network
    del again, layer
    gc.collect()
    assert len(NETWORKS) == before - 1
    save({name: tensor + 1 for name, tensor in tensors.items()}, "flux.safetensors")
    anew, _ = load_source(path, None, "auto")
    assert isinstance(anew, ForeignControl) and anew.control.control_model is not network


def test_what_the_host_misses_is_said(tensors: dict[str, Tensor], save: Save) -> None:
    path = save({name: tensor for name, tensor in tensors.items() if name != "txt_in.bias"}, "flux.safetensors")
    root = logging.getLogger()
    handlers = list(root.handlers)
    _, description = load_source(path, None, "auto")
    assert "\nthe host says: missing controlnet keys: ['txt_in.bias']\n" in description
    assert root.handlers == handlers


def test_what_the_host_does_not_take(tensors: dict[str, Tensor], save: Save) -> None:
    path = save({**tensors, "double_blocks.0.img_mod.lin.bias": torch.zeros(7)}, "flux.safetensors")
    with pytest.raises(HostLoaderError) as caught:
        load_source(path, None, "auto")
    text = str(caught.value)
    assert text.startswith(
        "'flux.safetensors' is a control for Flux (XLabs) that the host's own loader does not take (RuntimeError: "
    )
    assert text.endswith(
        "), but one that it knows was expected; update the host, download the file again, or use the nodes that its author made for it."
    )


def test_refusals(tensors: dict[str, Tensor], save: Save) -> None:
    path = save(tensors, "flux.safetensors")
    sd1 = ConnectedBase("SD1", 320, (1, 2, 4, 4), (2, 2, 2, 2), 768, None, 8, -1)
    other = ConnectedBase("SD3", 0, (), (), None, None, 0, 0)
    for model in (sd1, other):
        with pytest.raises(BaseMismatchError) as mismatch:
            open_control(path, model)
        assert str(mismatch.value) == (
            f"'flux.safetensors' is a control for the base Flux, but the connected model is of the base {model.name}; connect a model that it "
            "was made for, or choose a control made for the connected one."
        )
    with pytest.raises(ControlError) as pooled:
        load_source(path, None, "on")
    assert str(pooled.value) == (
        "flux.safetensors is a control for Flux (XLabs), whose residuals are tokens and no pictures, but pooling is on; set pooling to auto or off."
    )
    with pytest.raises(HostLoaderError) as scaled:
        open_control(save({**tensors, "txt_in.scale_weight": torch.ones(1)}, "scaled.safetensors"))
    assert str(scaled.value) == (
        "'scaled.safetensors' is a control for Flux (XLabs) with quantised weights (it has the key 'txt_in.scale_weight'), but plain weights were "
        "expected, because the host's loader of controls knows no others; choose its float16, bfloat16 or plain float8 version."
    )
    with pytest.raises(IncompleteError, match=r"lacks 'txt_in\.weight'"):
        open_control(save({**tensors, "txt_in.weight": torch.zeros(0, 32)}, "empty.safetensors"))


def test_a_control_that_reads_latents_wants_a_vae(tensors: dict[str, Tensor], save: Save) -> None:
    source, _ = load_source(save(tensors, "flux.safetensors"), None, "auto")
    assert isinstance(source, ForeignControl)
    source.control.latent_format = object()
    with pytest.raises(ControlError) as caught:
        make_layer(Control.unbound(source), torch.rand(1, 3, 64, 64))
    assert str(caught.value) == (
        "flux.safetensors reads its hint through a VAE, but none is connected; connect the VAE of its model to the Apply node."
    )


def test_what_stock_nodes_set_reaches_the_hosts_control(tensors: dict[str, Tensor], save: Save) -> None:
    source, _ = load_source(save(tensors, "flux.safetensors"), None, "auto")
    assert isinstance(source, ForeignControl)
    source.control.concat_mask = True
    control = Control.unbound(source).copy()
    assert control.concat_mask
    control.set_extra_arg("control_type", [3])
    mask = torch.rand(1, 1, 64, 64)
    for layer in (
        control.copy().set_cond_hint(torch.rand(1, 3, 64, 64), extra_concat=[mask]).layers[0],
        make_layer(control, torch.rand(1, 3, 64, 64)),
    ):
        assert isinstance(layer.source, ForeignControl)
        assert layer.source.control.extra_args == {"control_type": [3]}
    given = control.copy().set_cond_hint(torch.rand(1, 3, 64, 64), extra_concat=[mask]).layers[0].source
    assert isinstance(given, ForeignControl) and given.control.extra_concat_orig[0] is mask


# The names by which the host's loader tells its branches (comfy.controlnet.load_controlnet_state_dict) -> family, base.
BRANCHES = {
    ("after_proj_list.18.bias",): ("a control for HunyuanDiT", "HunyuanDiT"),
    ("controlnet_blocks.0.weight", "double_blocks.0.img_attn.norm.key_norm.scale"): ("a control for Flux (XLabs)", "Flux"),
    ("controlnet_blocks.0.weight", "pos_embed_input.proj.weight", "transformer_blocks.0.adaLN_modulation.1.bias"): (
        "a control for Stable Diffusion 3",
        "SD3",
    ),
    ("controlnet_blocks.0.weight", "transformer_blocks.0.img_mlp.net.0.proj.weight", "controlnet_x_embedder.weight"): (
        "a control for Qwen-Image (InstantX)",
        "QwenImage",
    ),
    ("controlnet_blocks.0.weight", "controlnet_x_embedder.weight", "transformer_blocks.0.attn.to_q.weight"): (
        "a control for Flux (InstantX)",
        "Flux",
    ),
    ("control_blocks.0.after_proj.weight", "control_img_in.weight"): ("a control for Qwen-Image (Fun)", "QwenImage"),
    ("controlnet_blocks.0.linear.weight", "double_blocks.0.img_attn.norm.key_norm.scale"): ("a MistoLine control for Flux", "Flux"),
    ("backbone.0.0.weight", "backbone.1.weight"): ("a control for Stable Cascade", "Stable_Cascade"),
    ("backbone.0.weight", "backbone.10.blocks.0.weight"): ("a large control for Stable Cascade", "Stable_Cascade"),
}  # fmt: skip


@pytest.mark.parametrize("names", list(BRANCHES), ids=lambda names: "-".join(names)[:60])
def test_each_branch_of_the_hosts_loader(names: tuple[str, ...], save: Save) -> None:
    path = save({name: torch.zeros(2, 5) for name in names}, "any.safetensors")
    match = open_control(path).match
    assert (match.family.name, match.base) == BRANCHES[names]
    assert [family.name for family in FAMILIES if family.condition.holds(match.names)] == [match.family.name]
    assert match.hyperparameters.hint_channels == (5 if match.base == "Stable_Cascade" else 3)
    assert match.family.loader is not None and match.family.loader.kind == "host"
