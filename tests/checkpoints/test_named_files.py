"""Files that are no controls: each is refused with its own name and its own way out, in one sentence of four parts."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from control_composer.checkpoints import open_control
from control_composer.checkpoints.errors import (
    CheckpointError,
    IncompleteError,
    RefusedFamilyError,
    UnreadableFileError,
)

WEIGHTS = "a weights file (.safetensors .pth .pt .ckpt .bin) was expected"
COMPLETE = "a complete safetensors file was expected"

# Key names as these files have them -> the words of the refusal: what it is, and what to do.
KEYS = {
    ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight",): ("a LoRA", "'Load LoRA'"),
    ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.default.weight",): ("a LoRA", "'Load LoRA'"),
    ("text_encoder.text_model.encoder.layers.0.self_attn.k_proj.lora_linear_layer.down.weight",): ("a LoRA", "'Load LoRA'"),
    ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora.down.weight",): ("a LoRA", "'Load LoRA'"),
    ("down_blocks.0.attentions.0.proj_in.lora_layer.down.weight",): ("a LoRA", "'Load LoRA'"),
    ("text_encoder.text_model.final_layer_norm.weight",): ("a text encoder", "'Load CLIP'"),
    ("lora_transformer_single_transformer_blocks_0_attn_to_k.alpha",): ("a LoRA", "'Load LoRA'"),
    ("diffusion_model.blocks.0.self_attn.q.lora_up.weight",): ("a LoRA", "'Load LoRA'"),
    ("image_proj.latents", "ip_adapter.1.to_k_ip.weight"): ("an IP-Adapter, or InstantID's part of that kind", "IP-Adapter node"),
    ("id_encoder.visual_projection.weight",): ("a PhotoMaker", "'Load PhotoMaker Model'"),
    ("emb_params",): ("a textual inversion embedding", "models/embeddings"),
    ("clip_g", "clip_l"): ("a textual inversion embedding", "models/embeddings"),
    ("conv_first.weight", "body.0.rdb1.conv1.weight"): ("an upscaling network", "'Load Upscale Model'"),
    ("body.0.weight", "body.1.weight", "body.2.weight"): ("an upscaling network", "'Load Upscale Model'"),
    ("norm", "block1.convs.0.weight", "block1.projection.weight"): ("an annotator's network (HED soft edges)", "preprocessor nodes"),
    ("init_block.weight", "conv_reduces.0.conv.weight"): ("an annotator's network (PiDiNet soft edges)", "preprocessor nodes"),
    ("conv1_1.weight", "Mconv1_stage2_L1.weight"): ("an annotator's network (OpenPose)", "preprocessor nodes"),
    ("pretrained.cls_token", "depth_head.projects.0.weight"): ("an annotator's network (Depth Anything)", "preprocessor nodes"),
    ("pretrained.model.cls_token", "scratch.refinenet4.out_conv.weight"): ("an annotator's network (MiDaS or ZoeDepth)", "preprocessor nodes"),
    ("model0.1.weight", "model4.1.weight"): ("an annotator's network (line art)", "preprocessor nodes"),
    ("task_embedding", "spatial_ch_projs.weight"): ("a CoAdapter fuser", "nodes made for this family"),
    ("style_embedding", "proj"): ("a T2I style adapter", "'Load Style Model'"),
    ("down_blocks.0.temporal_res_block.conv1.weight", "controlnet_cond_embedding.conv_in.weight"): (
        "an SVD ControlNet",
        "ComfyUI-Advanced-ControlNet",
    ),
    ("lllite_conditioning1.conv1.weight", "lllite_dit_blocks_0.down.weight"): ("an Anima ControlNet-LLLite", "'Load Model Patch'"),
    ("controlnet_blocks.0.y_rms.weight",): ("a control for Qwen-Image (DiffSynth)", "'Load Model Patch'"),
    ("controlnet_patch_embedding.weight", "controlnet_blocks.0.ffn.0.bias"): ("a Uni3C control for Wan", "'Load Model Patch'"),
    ("control_all_x_embedder.2-1.weight",): ("a control for Z-Image", "'Load Model Patch'"),
    ("controlnet_blocks.3.weight",): ("a control for a transformer model that the host does not know", "nodes made for this family"),
    ("patch_embedding.weight", "blocks.0.self_attn.q.weight"): ("a diffusion model without a control in it", "'Load Diffusion Model'"),
}  # fmt: skip


def refusal(path: Path, kind: type[CheckpointError]) -> str:
    with pytest.raises(kind) as caught:
        open_control(path)
    assert type(caught.value) is kind
    text = str(caught.value)
    assert text == f"'{path.name}' {caught.value.found}, but {caught.value.expected}; {caught.value.remedy}."
    assert "\n" not in text
    return text


def safetensors_of(names: tuple[str, ...]) -> bytes:
    header = {name: {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]} for i, name in enumerate(names)}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(4 * len(names))


@pytest.mark.parametrize("names", list(KEYS), ids=lambda names: names[0])
def test_named_by_its_keys(names: tuple[str, ...], tmp_path: Path) -> None:
    words = KEYS[names]
    path = tmp_path / "wrong.safetensors"
    path.write_bytes(safetensors_of(names))
    text = refusal(path, RefusedFamilyError)
    assert text.startswith(f"'wrong.safetensors' is {words[0]} (it has the key '")
    assert "), but a ControlNet was expected; " in text and words[1] in text.split("; ")[1]


# How files begin that are no weights -> found, remedy.
BEGINNINGS: dict[str, tuple[bytes, str, str]] = {
    "empty": (b"", "is empty", "download it again"),
    "LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1445157124\n",
        "is only a Git LFS pointer",
        "fetch the real file with 'git lfs pull' or from its page",
    ),
    "web page": (
        b"<!doctype html><html><head><title>Sign in</title>",
        "is a web page",
        "download the file itself, not the page that shows it",
    ),
    "server's answer": (
        b'{"error":"Invalid credentials in Authorization header"}',
        "is a JSON text, such as a model's config.json or what a server answers in place of a file",
        "choose the weights file that it belongs to, or download that file again",
    ),
    "yaml": (
        b"model:\n  target: cldm.cldm.ControlLDM\n",
        "is a text file",
        "choose the weights file that it belongs to",
    ),
    "GGUF": (b"GGUF\x03\0\0\0", "is a GGUF file of quantised weights", "choose a weights file in one of these formats"),
    "picture": (b"\x89PNG\r\n\x1a\n\0\0", "is a picture (PNG)", "choose a weights file in one of these formats"),
    "RAR": (b"Rar!\x1a\x07\x01\0", "is a packed archive (RAR)", "choose a weights file in one of these formats"),
    "zeros": (bytes(4096), "begins with nothing but zeros, as a download does that did not end", "download it again"),
    "noise": (b"\x07\xf1\x93" * 99, "is in no format known here", "download it again or choose another file"),
}


@pytest.mark.parametrize("kind", BEGINNINGS)
@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_named_by_its_first_bytes(kind: str, ending: str, tmp_path: Path) -> None:
    content, found, remedy = BEGINNINGS[kind]
    path = tmp_path / f"wrong.{ending}"
    path.write_bytes(content)
    assert refusal(path, UnreadableFileError) == f"'wrong.{ending}' {found}, but {WEIGHTS}; {remedy}."


def test_zip_archive_without_weights(tmp_path: Path) -> None:
    path = tmp_path / "controls.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("control.safetensors", b"x" * 100)
    assert refusal(path, UnreadableFileError) == (
        "'controls.pth' is a zip archive and no file of torch, but a file of tensors was expected; unpack it and choose the weights file in it."
    )


def test_torchscript(tmp_path: Path) -> None:
    path = tmp_path / "lama.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "code/__torch__/lama.py", "constants.pkl"):
            archive.writestr(f"lama/{name}", b"\x80\x02}.")
    assert refusal(path, UnreadableFileError) == (
        "'lama.pt' is a TorchScript program, weights and code in one, but a file of tensors was expected; choose the weights that it was made of, or "
        "the node that it belongs to."
    )


@pytest.mark.parametrize(
    "names",
    [
        ("conv_in.weight", "controlnet_cond_embedding.conv_in.weight"),
        ("down_blocks.2.attentions.1.norm.weight", "down_blocks.2.attentions.1.norm.bias"),
        ("controlnet_mid_block.weight", "mid_block.attentions.0.norm.weight"),
    ],
)
def test_one_of_several_files_of_a_network(names: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "diffusion_pytorch_model-00002-of-00003.safetensors"
    path.write_bytes(safetensors_of(names))
    assert refusal(path, IncompleteError) == (
        f"'{path.name}' is number 2 of 3 files into which a network was split, but a whole network in one file was expected; choose its version in one "
        "file, or save it as one (in diffusers: save_pretrained with max_shard_size='20GB')."
    )


@pytest.mark.parametrize("share", [0.2, 0.99])
def test_download_that_did_not_end(share: float, tmp_path: Path) -> None:
    content = safetensors_of(tuple(f"zero_convs.{i}.0.weight" for i in range(50)))
    path = tmp_path / "control.safetensors"
    path.write_bytes(content[: int(len(content) * share)])
    text = refusal(path, UnreadableFileError)
    assert text.startswith("'control.safetensors' is cut off ") and text.endswith(
        f", but {COMPLETE}; download or save it again."
    )


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ({"image_proj": {"latents": torch.zeros(2)}, "ip_adapter": {"1.to_k_ip.weight": torch.zeros(2)}}, "an IP-Adapter, or"),
        ({"string_to_token": {"*": 265}, "string_to_param": {"*": torch.zeros(1, 768)}, "name": "cat"}, "a textual inversion"),
        ({"params_ema": {"conv_first.weight": torch.zeros(2)}}, "an upscaling network"),
        ({"params": {"conv_first.weight": torch.zeros(2)}, "params_ema": {"conv_first.weight": torch.zeros(2)}}, "an upscaling"),
        ({"id_encoder": {"a": torch.zeros(2)}, "lora_weights": {"b": torch.zeros(2)}}, "a PhotoMaker"),
    ],
    ids=["IP-Adapter", "embedding", "upscaler", "upscaler twice", "PhotoMaker"],
)  # fmt: skip
def test_named_inside_of_a_torch_file(content: dict[str, Any], name: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.bin"
    torch.save(content, path)
    assert refusal(path, RefusedFamilyError).startswith(f"'wrong.bin' is {name}")
