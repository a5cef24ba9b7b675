"""Writes published/*.json: the names and shapes of public control files, without their weights.

The names and shapes are those of the classes that the files are made for (diffusers' and the host's, on no device) at their published settings;
the size of each file, where its page tells it, is written beside them, and a test compares it with the sum of the shapes. Run it in a host
that has diffusers: python host.py python tests/checkpoints/make_published.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import comfy.cli_args
import torch

comfy.cli_args.args.cpu = not torch.cuda.is_available()

import comfy.cldm.cldm  # noqa: E402
import comfy.ldm.models.autoencoder  # noqa: E402
import comfy.ldm.modules.diffusionmodules.openaimodel  # noqa: E402
import comfy.ops  # noqa: E402
import comfy.t2i_adapter.adapter  # noqa: E402
import diffusers  # noqa: E402
import transformers  # noqa: E402

FOLDER = Path(__file__).parent / "published"
Shapes = dict[str, tuple[int, ...]]

SD1 = {
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_middle": 1,
    "context_dim": 768,
    "num_heads": 8,
}
# openai/clip-vit-large-patch14, its text model
CLIP = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "projection_dim": 768,
}
SD2 = SD1 | {"context_dim": 1024, "use_linear_in_transformer": True, "num_heads": -1, "num_head_channels": 64}
SDXL = {
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4],
    "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_middle": 10,
    "context_dim": 2048,
    "use_linear_in_transformer": True,
    "num_head_channels": 64,
    "num_classes": "sequential",
    "adm_in_channels": 2816,
}
XL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
XL_SMALL = XL | {"down_block_types": ("DownBlock2D",) * 3, "transformer_layers_per_block": (0, 0, 0)}
XL_UNION = XL | {"conditioning_embedding_out_channels": (16, 32, 96, 256)}


def shapes(module: Any, prefix: str = "") -> Shapes:
    return {prefix + name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def cldm(config: dict[str, Any], prefix: str = "", hint_channels: int = 3) -> Shapes:
    net = comfy.cldm.cldm.ControlNet(
        image_size=32,
        in_channels=4,
        hint_channels=hint_channels,
        use_spatial_transformer=True,
        legacy=False,
        operations=comfy.ops.disable_weight_init,
        **config,
    )
    return shapes(net, prefix)


def stable_diffusion() -> Shapes:
    """Model, autoencoder and text encoder of SD1, as a checkpoint of the original repository holds them."""
    unet = comfy.ldm.modules.diffusionmodules.openaimodel.UNetModel(
        image_size=32,
        in_channels=4,
        out_channels=4,
        use_spatial_transformer=True,
        legacy=False,
        transformer_depth_output=[1] * 9 + [0] * 3,
        operations=comfy.ops.disable_weight_init,
        **SD1,
    )
    levels = {"ch": 128, "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0}
    sizes = {"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3}
    autoencoder = comfy.ldm.models.autoencoder.AutoencoderKL(ddconfig=levels | sizes, embed_dim=4)
    text = transformers.CLIPTextModel(transformers.CLIPTextConfig.from_dict(CLIP))
    return (
        shapes(unet, "model.diffusion_model.")
        | shapes(autoencoder, "first_stage_model.")
        | shapes(text, "cond_stage_model.transformer.")
    )


def low_rank(config: dict[str, Any], rank: int) -> Shapes:
    """As Stability AI stores a Control-LoRA: what the encoder has in ranks, what is its own and all vectors in full."""
    found: Shapes = {"lora_controlnet": (1,)}
    for name, shape in cldm(config).items():
        if len(shape) == 1 or name.startswith(("input_hint_block", "zero_convs", "middle_block_out")):
            found[name] = shape
            continue
        inputs = 1
        for size in shape[1:]:
            inputs *= size
        lowest = min(rank, shape[0], inputs)
        module = name.removesuffix(".weight")
        found[f"{module}.down"] = (lowest, *shape[1:])
        found[f"{module}.up"] = (shape[0], lowest, *(1,) * (len(shape) - 2))
    return found


def ctrlora(rank: int, base: bool) -> Shapes:
    """As CtrLoRA's tool_extract_weights.py stores a base, with the LoRA layers of one condition, or a LoRA file."""
    found: Shapes = {}
    for name, shape in cldm(SD1, "control_model.").items():
        if "input_hint_block" in name:
            continue
        if base or any(part in name for part in ("zero_convs", "middle_block_out", "norm")):
            found[name] = shape
        if len(shape) == 2:
            layer = f"{name.removesuffix('.weight')}.lora_layer"
            found |= {f"{layer}.down.weight": (rank, shape[1]), f"{layer}.up.weight": (shape[0], rank)}
    return found


def adapter(cin: int, **changes: Any) -> Shapes:
    settings = {"nums_rb": 2, "ksize": 1, "sk": True, "use_conv": False, "xl": False} | changes
    return shapes(comfy.t2i_adapter.adapter.Adapter(cin=cin, **settings))


ANIMATEDIFF = {
    "pos_embed": "attention_blocks.0.pos_encoder",
    "attn1": "attention_blocks.0",
    "norm1": "norms.0",
    "norm3": "ff_norm",
}


def sparsectrl(rgb: bool, original: bool) -> Shapes:
    """Diffusers' class at its defaults, which are the published settings; `original`: with the names that AnimateDiff's class has."""
    net = diffusers.SparseControlNetModel(conditioning_channels=4 if rgb else 3, use_simplified_condition_embedding=rgb)
    found: Shapes = {}
    for name, shape in shapes(net).items():
        parts = name.split(".")
        if original and "motion_modules" in parts:
            inside = [ANIMATEDIFF.get(part, part) for part in parts[4:]]
            name = ".".join((*parts[:4], "temporal_transformer", *inside))
        found[name] = shape
    return found


def lllite(embedding: int, bottleneck: int) -> Shapes:
    """The modules that kohya-ss/sd-scripts puts before SDXL's layers (networks/control_net_lllite.py, as its switches stand)."""
    unet = comfy.ldm.modules.diffusionmodules.openaimodel.UNetModel(
        image_size=32,
        in_channels=4,
        out_channels=4,
        use_spatial_transformer=True,
        legacy=False,
        transformer_depth_output=[0, 0, 0, 2, 2, 2, 10, 10, 10],
        operations=comfy.ops.disable_weight_init,
        **SDXL,
    )
    found: Shapes = {}
    for path, layer in unet.named_modules():
        if not path.startswith(("input_blocks", "middle_block")) or not re.search(
            r"attn1\.to_[qkv]$|attn2\.to_q$", path
        ):
            continue
        depth = 3 if path.startswith("middle_block") else (int(path.split(".")[1]) + 2) // 3
        convolution, linear = torch.nn.Conv2d, torch.nn.Linear
        half, width = embedding // 2, layer.in_features
        layers: list[torch.nn.Module] = [convolution(3, half, 4, 4), torch.nn.ReLU()]
        if depth == 3:
            layers += [convolution(half, half, 4, 4), torch.nn.ReLU(), convolution(half, embedding, 2, 2)]
        else:
            layers.append(convolution(half, embedding, 2 * depth, 2 * depth))
        module = torch.nn.ModuleDict(
            {
                "conditioning1": torch.nn.Sequential(*layers),
                "down": torch.nn.Sequential(linear(width, bottleneck)),
                "mid": torch.nn.Sequential(linear(bottleneck + embedding, bottleneck)),
                "up": torch.nn.Sequential(linear(bottleneck, width)),
            }
        )
        found |= shapes(module, f"lllite_unet_{path.replace('.', '_')}.")
    return found


def controlnext(release: str) -> Shapes:
    """dvlab-research/ControlNeXt's network of one of its releases, out of diffusers' blocks."""
    from controlnext_reference import REAL, Reference  # beside this script

    return shapes(Reference(release, **REAL[release]))


def files() -> Iterable[tuple[str, str, float | None, Shapes]]:
    """File, dtype, size in MB as published, tensors."""
    yield "control_v11p_sd15_canny_fp16.safetensors", "float16", 722.6, cldm(SD1)
    yield "control_v11p_sd15_canny.pth", "float32", 1445, cldm(SD1, "control_model.")
    yield (
        "lllyasviel control_v11p_sd15_canny (diffusers)",
        "float32",
        1445,
        shapes(diffusers.ControlNetModel(cross_attention_dim=768, attention_head_dim=8)),
    )
    temporal = cldm(SD1, "control_model.", hint_channels=6) | stable_diffusion()
    yield "temporalnetversion2.safetensors", "float32", 5710, temporal
    yield "control_v11p_sd21_canny.safetensors", "float16", 728, cldm(SD2)
    difference = cldm(SD1, "control_model.") | {"difference": (1,)}
    yield "diff_control_sd15_canny_fp16.safetensors", "float16", 723, difference
    yield "diffusers controlnet-canny-sdxl-1.0", "float16", 2500, shapes(diffusers.ControlNetModel(**XL))
    yield "diffusers controlnet-canny-sdxl-1.0-small", "float16", None, shapes(diffusers.ControlNetModel(**XL_SMALL))
    for types, name in ((6, ""), (8, "_promax")):
        net = diffusers.ControlNetUnionModel(num_control_type=types, **XL_UNION)
        yield f"xinsir controlnet-union-sdxl-1.0{name}", "float16", None, shapes(net)
    yield "control-lora-canny-rank256.safetensors", "float16", 774, low_rank(SDXL, 256)
    yield "control-lora-canny-rank128.safetensors", "float16", 396, low_rank(SDXL, 128)
    yield "control_lora_rank128_v11p_sd15_canny_fp16.safetensors", "float16", 136, low_rank(SD1, 128)
    yield "ctrlora_sd15_basecn700k.ckpt", "float32", 1540, ctrlora(128, base=True)
    yield "ctrlora_sd15_basecn700k_lineart_rank128_1kimgs_1ksteps.ckpt", "float32", 148, ctrlora(128, base=False)
    yield "controllllite_v01032064e_sdxl_canny.safetensors", "float16", 46.2, lllite(32, 64)
    yield "controllllite_v01008016e_sdxl_depth_anime.safetensors", "float16", 11.3, lllite(8, 16)
    # Its settings are those that give its size.
    yield "bdsqlsz_controlllite_xl_canny.safetensors", "float16", 224, lllite(128, 256)
    yield "t2iadapter_depth_sd14v1.pth", "float32", 309.5, adapter(192)
    yield "t2iadapter_canny_sd14v1.pth", "float32", 308, adapter(64)
    light = comfy.t2i_adapter.adapter.Adapter_light(cin=192, channels=[320, 640, 1280, 1280], nums_rb=4)
    yield "t2iadapter_color_sd14v1.pth", "float32", 74.8, shapes(light)
    xl = diffusers.T2IAdapter(adapter_type="full_adapter_xl", downscale_factor=16)
    yield "t2i-adapter-lineart-sdxl-1.0.safetensors", "float32", 316.1, shapes(xl)
    yield "t2i-adapter_xl_canny.safetensors", "float16", 158.1, adapter(768, xl=True)
    for rgb, kind in ((True, "rgb"), (False, "scribble")):
        yield f"v3_sd15_sparsectrl_{kind}.ckpt", "float32", 1990, sparsectrl(rgb, original=True)
        yield f"guoyww animatediff-sparsectrl-{kind}", "float32", None, sparsectrl(rgb, original=False)
    yield "ControlNeXt-SD1.5 deepfashion_caption controlnet.safetensors", "float32", 21.4, controlnext("SD1.5")
    yield "ControlNeXt-SDXL vidit_depth controlnet (July 2024).safetensors", "float32", 22.4, controlnext("SDXL July")
    yield "ControlNeXt-SDXL anime_canny controlnet.safetensors", "float32", 14.1, controlnext("August")


def tree(found: Shapes) -> dict[str, Any]:
    """The names as folders, which keeps the files small."""
    root: dict[str, Any] = {}
    for name, shape in found.items():
        *folders, last = name.split(".")
        inner = root
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[last] = list(shape)
    return root


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with torch.device("meta"):
        for name, dtype, megabytes, found in files():
            content = {"file": name, "dtype": dtype, "megabytes": megabytes, "tensors": tree(found)}
            path = (
                FOLDER
                / f"{name.split('.safetensors')[0].split('.pth')[0].split('.ckpt')[0].replace(' ', '_').replace('(', '').replace(')', '')}.json"
            )
            path.write_text(json.dumps(content, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
