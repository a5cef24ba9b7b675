"""SparseCtrl: files of diffusers' class with random weights, narrow, in its own layout and in AnimateDiff's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from control_composer.control import Control
from control_composer.nodes.load import load_source
from control_composer.tests import narrow
from control_composer.tests.control.case import Case, save
from control_composer.tests.control.case_ctrlora import make_vae

HEADS = {"num_heads": "4"}
# Inside of a motion module: diffusers' name -> AnimateDiff's (animatediff/models/motion_module.py).
ANIMATEDIFF = {
    "pos_embed.pe": "attention_blocks.0.pos_encoder.pe",
    "attn1": "attention_blocks.0",
    "norm1": "norms.0",
    "norm3": "ff_norm",
}


def network(rgb: bool, seed: int = 12, **changes: Any) -> Any:
    """Diffusers' network of the narrow model's widths, with weights in all its zero convolutions too."""
    diffusers = pytest.importorskip("diffusers")
    settings: dict[str, Any] = {
        "block_out_channels": (32, 64, 128, 128),
        "cross_attention_dim": 24,
        "attention_head_dim": 4,
        "conditioning_channels": 4 if rgb else 3,
        "use_simplified_condition_embedding": rgb,
    }
    net = diffusers.SparseControlNetModel(**settings | changes)
    narrow.fill(net, seed)
    return net.eval()


def animatediff_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights as AnimateDiff stores them."""

    def renamed(name: str) -> str:
        found = re.fullmatch(r"(down_blocks\.\d+\.motion_modules\.\d+)\.(.+)", name)
        if found is None:
            return name
        inside = found[2]
        for theirs, original in ANIMATEDIFF.items():
            inside = re.sub(rf"(transformer_blocks\.\d+)\.{re.escape(theirs)}(?=\.|$)", rf"\1.{original}", inside)
        return f"{found[1]}.temporal_transformer.{inside}"

    return {renamed(name): tensor for name, tensor in tensors.items()}


def sparse(rgb: bool) -> Callable[[Path], Case]:
    def make(folder: Path) -> Case:
        path = save(folder, animatediff_names(network(rgb).state_dict()), "sparse.safetensors", HEADS)
        source, description = load_source(path, None, "auto")
        settings = {"vae": make_vae()} if rgb else {}
        return Case(
            "sd1",
            narrow.make_model("sd1"),
            Control.unbound(source),
            None,
            description,
            settings,
            hint_for_each_latent=False,
        )

    return make
