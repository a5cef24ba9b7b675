"""ControlNeXt's own networks and UNets, of all its releases, beside ours: what the UNet gives in the host's sampler.

    python host.py python benchmarks/controlnext_published.py FOLDER

FOLDER is a clone, with its history, of github.com/dvlab-research/ControlNeXt; each release is read from its own commit. Its classes have their
published widths, but for the last 1×1 convolution, which has as many outputs as the UNet has channels: a tenth of SD1.5's, a fifth of
SDXL's.
Needs diffusers, which the test environment has.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.cli_args
import diffusers
import torch
from torch import Tensor

# In single precision and on the CPU wherever it runs: numbers are compared here, not speed. Before the host's other modules.
comfy.cli_args.args.cpu = True

import comfy.model_patcher  # noqa: E402
import comfy.supported_models  # noqa: E402
import comfy.utils  # noqa: E402
import safetensors.torch  # noqa: E402

from control_composer.benchmarks.residual_widths import TOLERANCE, relative  # noqa: E402
from control_composer.benchmarks.surroundings import commit, hardware  # noqa: E402
from control_composer.benchmarks.widths import NARROW, SDXL, Width, fill  # noqa: E402
from control_composer.control import Control, apply_control  # noqa: E402
from control_composer.nodes.load import load_source  # noqa: E402

# The host's SDXL has heads of 64 channels.
NARROW_XL = SDXL | {"model_channels": 64, "context_dim": 40}
WIDTHS = {
    "SD1.5": Width(NARROW, comfy.supported_models.SD15),
    "SDXL": Width(NARROW_XL, comfy.supported_models.SDXL),
}
# The same UNets in diffusers' words, where "attention_head_dim" is the number of heads.
UNETS: dict[str, dict[str, Any]] = {
    "SD1.5": {"block_out_channels": (32, 64, 128, 128), "cross_attention_dim": 24, "attention_head_dim": 8},
    "SDXL": {
        "block_out_channels": (64, 128, 256),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (1, 2, 4),
        "cross_attention_dim": 40,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
HEIGHT, WIDTH, STRENGTH, POOLED = 16, 24, 0.35, 1280


@dataclass(frozen=True)
class Release:
    """Where a release is in the repository, and by which argument its UNet takes what its network gives."""

    base: str
    commit: str
    folder: str
    argument: str
    network: str = "models/controlnet.py"


RELEASES = {
    "June, SD1.5": Release("SD1.5", "ab4b3ac", "ControlNeXt-SD1.5", "mid_block_additional_residual"),
    "June, SDXL": Release("SDXL", "f986235", "ControlAny-SDXL", "mid_block_additional_residual"),
    "July, SDXL": Release("SDXL", "d1d16da", "ControlNeXt-SDXL", "mid_block_additional_residual"),
    "August, SDXL": Release("SDXL", "ab4b3ac", "ControlNeXt-SDXL", "controls"),
    "August, SD1.5": Release(
        "SD1.5", "ab4b3ac", "ControlNeXt-SD1.5-Training", "conditional_controls", "models/controlnext.py"
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    versions = f"torch {torch.__version__}, diffusers {diffusers.__version__}"
    print(f"{datetime.date.today()}, commit {commit()}, {hardware()}, {versions}, fp32")
    passed = True
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        for name, release in RELEASES.items():
            difference, effect = compared(options.folder, release, Path(folder))
            print(
                f"{name}: the UNet's output differs by {difference:.2e} (the control changes it by {effect:.2e})",
                flush=True,
            )
            passed &= difference <= TOLERANCE < effect
    sys.exit(0 if passed else 1)


def compared(repository: Path, release: Release, folder: Path) -> tuple[float, float]:
    """Largest relative difference between the repository's UNet and the host's with our control, and what the control changes."""
    network = one_model(module_of(repository, release, release.network, folder), "ControlN")()
    unet_class = one_model(module_of(repository, release, "models/unet.py", folder), "", "UNet2DConditionModel")
    unet, host = unet_class(**UNETS[release.base]).eval(), host_model(release.base)
    last = network.mid_convs[1]
    config = WIDTHS[release.base].unet
    channels = config["model_channels"] * (1 if last.out_channels == 320 else config["channel_mult"][-1])
    network.mid_convs[1] = torch.nn.Conv2d(last.in_channels, channels, 1)
    fill(network, 1)
    fill(unet, 2)
    if isinstance(network.scale, torch.nn.Parameter):
        network.scale.fill_(0.8)
    names = comfy.utils.unet_to_diffusers(host.model.model_config.unet_config)
    state = {ours: unet.state_dict()[theirs] for theirs, ours in names.items() if theirs in unet.state_dict()}
    host.model.diffusion_model.load_state_dict(state, strict=True)

    path = folder / "controlnet.safetensors"
    safetensors.torch.save_file(network.state_dict(), path)
    hint = torch.rand(1, 8 * HEIGHT, 8 * WIDTH, 3, generator=torch.Generator().manual_seed(5))
    source, _ = load_source(path, host, "auto")
    given, ours = sampled(host, WIDTHS[release.base], Control.unbound(source), hint)
    _, plain = sampled(host, WIDTHS[release.base], None, hint)
    found = network(hint.movedim(-1, 1).repeat(len(ours), 1, 1, 1), given["timesteps"])
    found["scale"] = found["scale"] * STRENGTH
    theirs = unet(
        given["x"],
        given["timesteps"],
        encoder_hidden_states=given["context"],
        added_cond_kwargs=pooled_of(given),
        return_dict=False,
        **{release.argument: found},
    )[0]
    return relative(ours, theirs), relative(plain, theirs)


def module_of(repository: Path, release: Release, file: str, folder: Path) -> Any:
    """A file of the repository, as it was at the release, imported."""
    name = f"{release.commit}:{release.folder}/{file}"
    shown = subprocess.run(["git", "show", name], cwd=repository, capture_output=True)
    if shown.returncode:
        sys.exit(f"{repository} has no {name}; give a clone of github.com/dvlab-research/ControlNeXt with its history.")
    path = folder / Path(file).name
    path.write_bytes(shown.stdout)
    spec = importlib.util.spec_from_file_location(f"controlnext_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def one_model(module: Any, start: str, end: str = "Model") -> Any:
    """The class of that name, which the releases begin differently."""
    [found] = [
        value
        for name, value in vars(module).items()
        if name.startswith(start) and name.endswith(end) and getattr(value, "__module__", "") == module.__name__
    ]
    return found


def host_model(base: str) -> Any:
    device = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(WIDTHS[base].model(torch.float32), device, device)


def sampled(host: Any, width: Width, control: Any, hint: Tensor) -> tuple[dict[str, Any], Tensor]:
    """What the host's UNet got in the first call of its sampler, and what it gave."""
    import nodes  # ComfyUI's

    seen: list[tuple[dict[str, Any], Tensor]] = []

    def watch(_: Any, given: Any, named: dict[str, Any], out: Tensor) -> None:
        seen.append(({"x": given[0], "timesteps": given[1], **named}, out.clone()))

    conds: Any = (width.conditioning(3), width.conditioning(4))
    if control is not None:
        positive, negative = conds
        conds = apply_control(positive, negative, control, hint, STRENGTH, 0.0, 1.0)
    hook = host.model.diffusion_model.register_forward_hook(watch, with_kwargs=True)
    latent = {"samples": torch.zeros(1, 4, HEIGHT, WIDTH)}
    nodes.common_ksampler(host, 3, 1, 7.0, "euler", "normal", *conds, latent)
    hook.remove()
    return seen[0]


def pooled_of(given: dict[str, Any]) -> dict[str, Tensor] | None:
    """What SDXL reads beside the text, in diffusers' words: the host puts the size of the picture behind the pooled text."""
    if given.get("y") is None:
        return None
    size = torch.tensor([8.0 * HEIGHT, 8.0 * WIDTH])
    ids = torch.cat([size, torch.zeros(2), size]).repeat(len(given["y"]), 1)
    return {"text_embeds": given["y"][:, :POOLED], "time_ids": ids}


if __name__ == "__main__":
    main()
