"""Writes the files of published/*.json that are ControlNet-XS, as make_published.py does the others.

Those of the original are made by its own class, in a checkout of github.com/vislearn/ControlNet-XS:
python host.py python tests/checkpoints/make_published_xs.py FOLDER
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import diffusers
import torch

from control_composer.tests.checkpoints.xs_names import model_modules, named

PUBLISHED = Path(__file__).parent / "published"
Shapes = dict[str, tuple[int, ...]]

# config.json of UmerHA/Testing-ConrolNetXS-SD2.1-canny and -SDXL-canny.
ADAPTERS: dict[str, dict[str, Any]] = {
    "SD2.1": {"num_attention_heads": [1, 1, 2, 2], "learn_time_embedding": True},
    "SDXL": {
        "base_block_out_channels": (320, 640, 1280),
        "block_out_channels": (32, 64, 128),
        "cross_attention_dim": 2048,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "learn_time_embedding": True,
        "num_attention_heads": [1, 1, 2],
        "transformer_layers_per_block": (1, 2, 10),
    },
}
# configs/inference/sd/*.yaml of the original.
SD: dict[str, Any] = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "hint_channels": 3,
    "model_channels": 320,
    "attention_resolutions": [4, 2, 1],
    "num_res_blocks": 2,
    "channel_mult": [1, 2, 4, 4],
    "use_spatial_transformer": True,
    "transformer_depth": 1,
    "legacy": False,
    "infusion2control": "cat",
    "infusion2base": "add",
    "guiding": "encoder_double",
    "two_stream_mode": "cross",
}
SD21 = {"num_head_channels": 8, "use_linear_in_transformer": True, "context_dim": 1024, "control_model_ratio": 0.0125}
SD15 = {"num_heads": 8, "context_dim": 768, "control_model_ratio": 0.2, "learn_embedding": False}


def adapter(base: str) -> Shapes:
    return {
        name: tuple(tensor.shape)
        for name, tensor in diffusers.ControlNetXSAdapter(**ADAPTERS[base]).state_dict().items()
    }


def model(base: str) -> Shapes:
    """As ControlNetXSModel, the class of diffusers 0.25 to 0.27, saved it."""
    levels = len(ADAPTERS[base].get("block_out_channels", range(4)))
    return named(adapter(base), model_modules(levels))


def original(folder: Path, **changes: Any) -> Shapes:
    """The tensors that its class has beside the model that it is built upon."""
    sys.path.insert(0, str(folder))
    for name in ("omegaconf", "omegaconf.listconfig"):  # of which it wants to know whether a setting is such a list
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].ListConfig = type("ListConfig", (list,), {})  # type: ignore[attr-defined]
    from ldm.modules.diffusionmodules.twoStreamControl import TwoStreamControlNet

    tensors = TwoStreamControlNet(**SD | changes).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in tensors.items() if not name.startswith("diffusion_model.")}


def files(folder: Path | None) -> Iterable[tuple[str, float | None, Shapes]]:
    """File, size in MB as published (all are float32), tensors."""
    yield "UmerHA Testing-ConrolNetXS-SD2.1-canny", None, adapter("SD2.1")
    yield "UmerHA Testing-ConrolNetXS-SDXL-canny", None, adapter("SDXL")
    yield "UmerHA ConrolNetXS-SD2.1-canny", 56.8, model("SD2.1")
    yield "UmerHA ConrolNetXS-SDXL-canny", 170, model("SDXL")
    if folder is not None:
        yield "sd21_encD_canny_14m.ckpt", 56.9, original(folder, **SD21)
        yield "sd15_encD_canny_53m.ckpt", 211, original(folder, **SD15)


def tree(found: Shapes) -> dict[str, Any]:
    """The names as folders, which keeps the files small."""
    root: dict[str, Any] = {}
    for name, shape in found.items():
        *folders, last = name.split(".")
        inner = root
        for part in folders:
            inner = inner.setdefault(part, {})
        inner[last] = list(shape)
    return root


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with torch.device("meta"):
        for name, megabytes, found in files(folder):
            content = {"file": name, "dtype": "float32", "megabytes": megabytes, "tensors": tree(found)}
            path = PUBLISHED / f"{name.removesuffix('.ckpt').replace(' ', '_')}.json"
            path.write_text(json.dumps(content, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
