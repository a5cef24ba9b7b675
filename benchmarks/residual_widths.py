"""Residuals of our loader against diffusers' ControlNetModel at the real widths of SD1.5 and SDXL, on random weights.

    python host.py python benchmarks/residual_widths.py [SD1 SDXL ...] [--folder WHERE_5_GB_FIT]

Needs diffusers, which the test environment has. One network is in memory at a time: 1.5 GB for SD1, 5 GB for SDXL, and as much on disk.
"""

from __future__ import annotations

import argparse
import datetime
import tempfile
import time
from pathlib import Path
from typing import Any

import comfy.cli_args
import diffusers
import safetensors.torch
import torch
from torch import Tensor

# In single precision and on the CPU wherever it runs: numbers are compared here, not speed. Before the host's other modules.
comfy.cli_args.args.cpu = True

from control_composer.benchmarks.surroundings import hardware  # noqa: E402
from control_composer.checkpoints import load_checkpoint  # noqa: E402

TOLERANCE = 1e-4

# The configurations of lllyasviel/sd-controlnet-canny, thibaud/controlnet-sd21 and diffusers/controlnet-canny-sdxl-1.0.
# Diffusers' `attention_head_dim` is the number of heads.
SD1 = {"attention_head_dim": 8, "cross_attention_dim": 768}
SD2 = {"attention_head_dim": (5, 10, 20, 20), "cross_attention_dim": 1024, "use_linear_projection": True}
SDXL = {
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
CONFIGS: dict[str, dict[str, Any]] = {"SD1": SD1, "SD2": SD2, "SDXL": SDXL}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bases", nargs="*", choices=[*CONFIGS, []], default=[], help="SD1 and SDXL if none is named")
    parser.add_argument("--folder", type=Path, help="where the weights are written for the time of the run")
    parser.add_argument("--latent", type=int, default=16, help="side of the latent in cells")
    options = parser.parse_args()
    print(f"{datetime.date.today()}, {hardware()}, torch {torch.__version__}, diffusers {diffusers.__version__}, fp32")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        passed = [compare(base, Path(folder), options.latent) for base in options.bases or ["SD1", "SDXL"]]
    if not all(passed):
        raise SystemExit(f"an error is above {TOLERANCE}")


@torch.no_grad()
def compare(base: str, folder: Path, side: int) -> bool:
    """Print the largest error of each connection, relative to the largest value of diffusers' residual."""
    path = folder / f"{base}.safetensors"
    values, theirs, embedding = reference(base, path, side)
    start = time.perf_counter()
    loaded = load_checkpoint(path)
    seconds = time.perf_counter() - start
    path.unlink()
    module = loaded.built.module
    errors = [relative(module.input_hint_block(values["hint"], None, None), embedding)]
    ours = module(values["x"], values["hint"], values["timesteps"], values["context"], y=values.get("y"))
    errors += [relative(a, b) for a, b in zip([*ours["output"], *ours["middle"]], theirs, strict=True)]
    print(f"\n{base}: {loaded.match.parameter_count / 1e6:.1f} M parameters, loaded in {seconds:.1f} s")
    print(f"  hint embedding {errors[0]:.1e}")
    print("  residuals 0, 1, ... middle: " + " ".join(f"{error:.1e}" for error in errors[1:]))
    print(f"  largest {max(errors):.2e} (allowed {TOLERANCE})", flush=True)
    return max(errors) < TOLERANCE


def reference(base: str, path: Path, side: int) -> tuple[dict[str, Tensor], list[Tensor], Tensor]:
    """Inputs, residuals and hint embedding of diffusers' network, whose weights are saved at `path`."""
    generator = torch.Generator().manual_seed(0)
    net = diffusers.ControlNetModel(**CONFIGS[base])
    for parameter in net.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(1 + 0.1 * noise if parameter.ndim == 1 else noise / parameter[0].numel() ** 0.5)
    safetensors.torch.save_file(net.state_dict(), path)

    values = {
        "x": torch.randn(2, 4, side, side, generator=generator),
        "hint": torch.rand(2, 3, 8 * side, 8 * side, generator=generator),
        "timesteps": torch.tensor([13.0, 977.0]),
        "context": torch.randn(2, 77, net.config.cross_attention_dim, generator=generator),
    }
    added = None
    if base == "SDXL":
        pixels = 8.0 * side
        sizes = torch.tensor([[pixels, pixels, 0, 0, pixels, pixels]] * 2)
        added = {"text_embeds": torch.randn(2, 1280, generator=generator), "time_ids": sizes}
        values["y"] = torch.cat([added["text_embeds"], net.add_time_proj(sizes.flatten()).reshape(2, -1)], dim=1)
    down, middle = net(
        values["x"], values["timesteps"], values["context"], values["hint"], added_cond_kwargs=added, return_dict=False
    )
    return values, [*down, middle], net.controlnet_cond_embedding(values["hint"])


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


if __name__ == "__main__":
    main()
