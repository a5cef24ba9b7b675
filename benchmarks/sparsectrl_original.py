"""Residuals of AnimateDiff's own SparseCtrl class on random weights, for sparsectrl_published.py to compare with.

    PYTHONPATH=ANIMATEDIFF python benchmarks/sparsectrl_original.py ANIMATEDIFF OUT.pt [--narrow] [--kind scribble] [--frames 4]

Runs in AnimateDiff's environment (diffusers 0.11.1 with a huggingface_hub below 0.26, einops, torchvision), which is not this pack's, so it imports
nothing of this pack. ANIMATEDIFF is a checkout of guoyww/AnimateDiff. At the real width OUT takes 2 GB.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

# configs/inference/sparsectrl/*.yaml
KINDS: dict[str, dict[str, Any]] = {
    "RGB": {"use_simplified_condition_embedding": True, "conditioning_channels": 4},
    "scribble": {"use_simplified_condition_embedding": False, "conditioning_channels": 3},
}
MOTION: dict[str, Any] = {
    "num_attention_heads": 8,
    "num_transformer_block": 1,
    "attention_block_types": ["Temporal_Self"],
    "temporal_position_encoding": True,
    "temporal_position_encoding_max_len": 32,
    "temporal_attention_dim_div": 1,
}
NARROW = (32, 64, 128, 128)
CHUNKS, CELLS, TOKENS = 2, 32, 7


def inputs(kind: str, frames: int, width: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """A hint for the first and last frame of each of two chunks."""
    channels = KINDS[kind]["conditioning_channels"]
    size = CELLS if kind == "RGB" else 8 * CELLS
    mask = torch.zeros(CHUNKS, 1, frames, size, size)
    mask[:, :, [0, frames - 1]] = 1
    return {
        "hint": mask * torch.randn(CHUNKS, channels, frames, size, size, generator=generator),
        "mask": mask,
        "text": torch.randn(CHUNKS, TOKENS, width, generator=generator),
        "timestep": torch.tensor([437, 437]),
    }


def fill(net: Any, generator: torch.Generator) -> None:
    """Weights everywhere, zero convolutions included, that keep activations near 1."""
    for name, parameter in net.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        shift = 1.0 if name.endswith("weight") else 0.0
        parameter.copy_(0.1 * noise + shift if parameter.ndim == 1 else noise / parameter[0].numel() ** 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("animatediff", type=Path, help="a checkout of guoyww/AnimateDiff, also in PYTHONPATH")
    parser.add_argument("out", type=Path)
    parser.add_argument("--narrow", action="store_true", help="a tenth of the width")
    parser.add_argument("--kind", choices=KINDS, default="RGB")
    parser.add_argument("--frames", type=int, default=4)
    options = parser.parse_args()
    if not (options.animatediff / "animatediff" / "models" / "sparse_controlnet.py").is_file():
        raise SystemExit(
            f"{options.animatediff} holds no animatediff/models/sparse_controlnet.py; give a checkout of guoyww/AnimateDiff"
        )
    from animatediff.models.sparse_controlnet import SparseControlNetModel

    width = 24 if options.narrow else 768
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        net = SparseControlNetModel(
            down_block_types=(*("CrossAttnDownBlock3D",) * 3, "DownBlock3D"),
            block_out_channels=NARROW if options.narrow else (320, 640, 1280, 1280),
            cross_attention_dim=width,
            attention_head_dim=8,
            set_noisy_sample_input_to_zero=True,
            motion_module_kwargs=MOTION,
            **KINDS[options.kind],
        ).eval()
        fill(net, generator)
        given = inputs(options.kind, options.frames, width, generator)
        down, middle = net(
            torch.randn(CHUNKS, 4, options.frames, CELLS, CELLS, generator=generator),
            given["timestep"],
            encoder_hidden_states=given["text"],
            controlnet_cond=given["hint"],
            conditioning_mask=given["mask"],
            return_dict=False,
        )
    torch.save({"controlnet": net.state_dict(), "inputs": given, "residuals": [*down, middle]}, options.out)


if __name__ == "__main__":
    main()
