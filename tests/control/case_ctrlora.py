"""CtrLoRA: a narrow base and a LoRA file of random weights, with a narrow VAE of the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.latent_formats
import comfy.sd
import torch
from torch import Tensor

from control_composer.control import Control
from control_composer.nodes.load import load_source
from control_composer.tests import narrow
from control_composer.tests.control.case import Case, save

RANK = 4


def base_weights(seed: int = 1) -> dict[str, Tensor]:
    """The narrow ControlNet without its hint network, in the names of the published base."""
    state = narrow.make_module("sd1", seed=seed).state_dict()
    return {f"control_model.{name}": x for name, x in state.items() if not name.startswith("input_hint_block")}


def lora_weights(seed: int = 2) -> dict[str, Tensor]:
    """What the repository's tool_extract_weights.py picks: differences of all linear layers, zero convolutions, and what has a norm's name."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, weight in base_weights(seed).items():
        if any(part in name for part in ("zero_convs", "middle_block_out", "norm")):
            tensors[name] = weight
        elif weight.ndim == 2:
            module = name.removesuffix(".weight")
            rows, columns = weight.shape
            tensors[f"{module}.lora_layer.down.weight"] = torch.randn(RANK, columns, generator=generator) / columns**0.5
            tensors[f"{module}.lora_layer.up.weight"] = torch.randn(rows, RANK, generator=generator) * 0.4
    return tensors


def make_vae(seed: int = 3, channels: int = 4) -> Any:
    """The host's VAE around its AutoencoderKL, narrow: 8 pixels a cell."""
    config = {
        "double_z": True,
        "z_channels": channels,
        "resolution": 64,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "ch_mult": [1, 1, 1, 1],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    vae = comfy.sd.VAE(
        sd={}, config={"params": {"ddconfig": config, "embed_dim": channels}}, device=torch.device("cpu"), dtype=torch.float32
    )  # fmt: skip
    narrow.fill(vae.first_stage_model, seed)
    vae.latent_channels = channels
    return vae


def files(folder: Path) -> tuple[Path, Path]:
    """LoRA and base."""
    heads = {"num_heads": "4"}
    return save(folder, lora_weights(), "canny.safetensors"), save(folder, base_weights(), "base.safetensors", heads)


def ctrlora(folder: Path) -> Case:
    lora, base = files(folder)
    model = narrow.make_model("sd1")
    source, description = load_source(lora, model, "auto", base=base)
    return Case("sd1", model, Control.unbound(source), None, description, {"vae": make_vae()})
