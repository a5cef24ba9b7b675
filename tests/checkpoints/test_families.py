"""Each kind of file is known by its own family; the keys are those of the published files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from control_composer.checkpoints import open_control
from control_composer.checkpoints.canonical import Canonical
from control_composer.checkpoints.condition import AllOf, AnyOf, Containing, Key, NoneOf, Starting
from control_composer.checkpoints.detect import find_family
from control_composer.checkpoints.errors import RefusedFamilyError
from control_composer.checkpoints.families import FAMILIES
from control_composer.checkpoints.heads import Heads
from control_composer.checkpoints.tensors import TensorInfo

Save = Callable[..., Path]
CLDM = ("zero_convs.0.0.weight", "input_hint_block.0.weight", "input_blocks.0.0.weight")
DIFFUSERS = ("controlnet_cond_embedding.conv_in.weight", "controlnet_mid_block.weight", "conv_in.weight")

EXAMPLES = {
    "a Control-LoRA": (*CLDM, "lora_controlnet", "input_blocks.1.0.in_layers.2.up"),
    "an Anima ControlNet-LLLite": ("lllite_conditioning1.conv1.weight", "lllite_dit_blocks_0_attn.down.weight"),
    "a ControlNet-LLLite": ("lllite_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.down.0.weight",),
    "a LoRA file of CtrLoRA": (
        "zero_convs.0.0.weight",
        "input_blocks.1.1.transformer_blocks.0.attn1.to_q.lora_layer.up.weight",
    ),
    "a CtrLoRA base": (
        "zero_convs.0.0.weight",
        "input_blocks.0.0.weight",
        "middle_block_out.0.weight",
        "input_blocks.1.1.transformer_blocks.0.attn1.to_q.lora_layer.up.weight",
    ),
    "an SVD ControlNet": (*DIFFUSERS, "down_blocks.0.resnets.0.temporal_res_block.conv1.weight"),
    "a SparseCtrl (RGB)": (
        "controlnet_cond_embedding.weight",
        "down_blocks.0.motion_modules.0.temporal_transformer.norm.weight",
    ),
    "a SparseCtrl (scribble)": (
        *DIFFUSERS,
        "down_blocks.0.motion_modules.0.temporal_transformer.norm.weight",
    ),
    "a ControlNet-XS (diffusers layout)": (
        "control_to_base_for_conv_in.weight",
        "down_blocks.0.resnets.0.conv1.weight",
        "controlnet_cond_embedding.conv_in.weight",
    ),
    "a ControlNet-XS (layout of diffusers 0.25 to 0.27)": (
        "down_zero_convs_out.0.weight",
        "control_model.down_blocks.0.resnets.0.conv1.weight",
        "controlnet_cond_embedding.conv_in.weight",
        "middle_block_out.weight",
    ),
    "a ControlNet-XS (vislearn layout)": (
        "enc_zero_convs_out.0.0.weight",
        "control_model.input_blocks.0.0.weight",
        "input_hint_block.0.weight",
        "middle_block_out.0.weight",
    ),
    "a ControlNet-XS merged with its model": (
        "control_to_base_for_conv_in.weight",
        "base_conv_in.weight",
        "down_blocks.0.ctrl_resnets.0.conv1.weight",
        "down_blocks.0.base_resnets.0.conv1.weight",
        "up_blocks.0.resnets.0.conv1.weight",
    ),
    "a ControlNeXt": ("mid_convs.0.0.weight", "embedding.0.weight", "down_res.0.norm1.weight"),
    "a ControlNeXt for Stable Video Diffusion": (
        "mid_convs.0.0.weight",
        "embedding.0.weight",
        "down_res.0.norm1.weight",
        "scale",
    ),
    "a file of UNet weights for a ControlNeXt": (
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0.weight",
        "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0.weight",
    ),
    "a difference ControlNet, which is added to its model": (
        "difference",
        *(f"control_model.{name}" for name in CLDM),
    ),
    "a Union ControlNet (diffusers layout)": (*DIFFUSERS, "task_embedding", "control_add_embedding.linear_1.weight"),
    "a Union ControlNet (cldm layout)": (*CLDM, "task_embedding", "control_add_embedding.linear_1.weight"),
    "a ControlNet (diffusers layout)": DIFFUSERS,
    "a ControlNet (cldm layout)": (*CLDM, "input_blocks.1.0.in_layers.0.weight"),
    "a T2I-Adapter (full)": ("conv_in.weight", "body.0.block1.weight", "body.0.block2.weight"),
    "a T2I-Adapter (light)": ("body.0.in_conv.weight", "body.0.body.0.block1.weight", "body.0.out_conv.weight"),
    "a T2I-Adapter (diffusers layout)": ("adapter.conv_in.weight", "adapter.body.0.resnets.0.block1.weight"),
    "a T2I style adapter": ("style_embedding", "ln_post.weight"),
    "a control for Stable Cascade": ("backbone.0.0.weight",),
    "a control for HunyuanDiT": ("after_proj_list.18.bias", "before_proj.weight"),
    "a control for Qwen-Image (Fun)": ("control_img_in.weight", "control_blocks.0.after_proj.weight"),
    "a MistoLine control for Flux": ("controlnet_blocks.0.linear.weight",),
    "a control for Flux (XLabs)": ("controlnet_blocks.0.weight", "double_blocks.0.img_attn.norm.key_norm.scale"),
    "a control for Stable Diffusion 3": ("controlnet_blocks.0.weight", "pos_embed_input.proj.weight"),
    "a control for Flux (InstantX)": ("controlnet_blocks.0.weight", "controlnet_x_embedder.weight"),
    "an IP-Adapter, or InstantID's part of that kind": ("image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"),
    "a LoRA": ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight",),
    "a full checkpoint (model, text encoder and VAE) without a control in it": (
        "model.diffusion_model.input_blocks.0.0.weight",
        "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight",
        "first_stage_model.encoder.conv_in.weight",
    ),
    "an AnimateDiff motion module": (
        "down_blocks.0.motion_modules.0.temporal_transformer.norm.weight",
        "up_blocks.0.motion_modules.0.temporal_transformer.norm.weight",
    ),
    "a diffusion model without a control in it": (
        "down_blocks.0.resnets.0.conv1.weight",
        "up_blocks.0.resnets.0.conv1.weight",
        "conv_in.weight",
    ),
    "a VAE": ("encoder.conv_in.weight", "decoder.conv_in.weight", "quant_conv.weight"),
    "a vision encoder (CLIP vision)": ("vision_model.embeddings.class_embedding",),
    "a text encoder": ("text_model.encoder.layers.0.mlp.fc1.weight",),
    "a textual inversion embedding": ("emb_params",),
    "an upscaling network": ("model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"),
}


def family_of(path: Path) -> str:
    try:
        return open_control(path).match.family.name
    except RefusedFamilyError as error:
        return error.found.removeprefix("is ").split(" (it has the key")[0]


REFUSED = [family.name for family in FAMILIES if family.loader is None and family.name in EXAMPLES]


@pytest.mark.parametrize("name", REFUSED)
def test_known_file_is_named(name: str, save: Save) -> None:
    tensors = {key: torch.zeros(1) for key in EXAMPLES[name]}
    assert family_of(save(tensors)) == name


@pytest.mark.parametrize("name", EXAMPLES)
def test_first_family_that_holds_is_the_right_one(name: str) -> None:
    names = [key.removeprefix("control_model.").removeprefix("adapter.") for key in EXAMPLES[name]]
    file = Canonical(Path("x"), {key: TensorInfo(key, (1,), torch.float32) for key in names}, {}, "")
    family = find_family(file, FAMILIES)
    assert family is not None and family.name == name


def test_every_remedy_says_what_to_do() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    for family in FAMILIES:
        assert family.name.startswith(("a ", "an "))
        assert family.loader is not None or family.remedy


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_description(dtype: torch.dtype, weights: dict[str, Tensor], save: Save) -> None:
    path = save({name: tensor.to(dtype) for name, tensor in weights.items()})
    assert open_control(path).match.describe() == (
        "family: a ControlNet (cldm layout)\nbase: custom (64 channels x 1-1-2, text of 64)\nhint: 3 channels\nparameters: 2.91 M\n"
        f"weights in the file: {str(dtype).removeprefix('torch.')}"
    )


@pytest.mark.parametrize(
    ("metadata", "pooling"),
    [({}, None), ({"global_average_pooling": "True"}, True), ({"global_average_pooling": "false"}, False)],
)
def test_pooling_is_the_files_word(
    metadata: dict[str, str], pooling: bool | None, weights: dict[str, Tensor], save: Save
) -> None:
    path = save(weights, "control_shuffle.safetensors", {"num_head_channels": "64"} | metadata)
    assert open_control(path).match.pooling is pooling


def test_heads_by_convention_at_real_widths(make_weights: Callable[..., dict[str, Tensor]]) -> None:
    from control_composer.checkpoints.encoder import EncoderHyperparameters
    from control_composer.checkpoints.heads import resolve_heads

    def net(mult: tuple[int, ...], context: int, linear: bool) -> EncoderHyperparameters:
        levels = len(mult)
        return EncoderHyperparameters(4, 320, 3, (1,) * levels, mult, (1,) * levels, 1, context, linear, None)

    def heads(mult: tuple[int, ...], context: int, linear: bool) -> tuple[int | None, int | None]:
        found = resolve_heads(Path("x"), net(mult, context, linear), {}, None)
        return found.count, found.width

    assert heads((1, 2, 4, 4), 768, False) == (8, None)
    assert heads((1, 2, 4, 4), 1024, True) == (None, 64)
    assert heads((1, 2, 4), 2048, True) == (None, 64)
    # What the file says of itself stands above all.
    told = resolve_heads(Path("x"), net((1, 2, 4), 2048, True), {"num_heads": "5"}, None)
    assert told == Heads(count=5, width=None, source="metadata")


def test_conditions_explain_themselves() -> None:
    condition = AllOf("a", AnyOf("b", AllOf("c", "d")), Starting("e."), Containing("f"), NoneOf("g"))
    names = dict.fromkeys(("a", "g"))
    assert condition.missing(names) == (
        "'b'",
        "keys that begin with 'e.'",
        "keys with 'f'",
        "the absence of 'g'",
    )
    assert not condition.holds(names)
    assert condition.holds(dict.fromkeys(("a", "c", "d", "e.1", "xfx")))
    assert Key("a").evidence(names) == "a" and NoneOf("a").evidence(names) is None
