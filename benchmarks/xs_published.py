"""ControlNet-XS beside diffusers' UNetControlNetXSModel and the authors' own code: one output of the host's UNet each.

    python host.py python benchmarks/xs_published.py [FOLDER] [--real]

FOLDER is a checkout of github.com/vislearn/ControlNet-XS, whose class runs around the host's UNet (Stable Diffusion 1 and 2). Weights are random, the
models narrow; --real makes them SD2.1's and SDXL's, SDXL with two transformer blocks where it has ten, at latents of 32 × 32 cells (8 GB of memory).
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfy.cli_args
import torch

# In single precision and on the CPU wherever it runs: numbers are compared here, not speed. Before the host's other modules.
comfy.cli_args.args.cpu = True

import comfy.model_patcher  # noqa: E402
import comfy.supported_models  # noqa: E402
import safetensors.torch  # noqa: E402
from torch import Tensor  # noqa: E402

from control_composer.benchmarks.residual_widths import TOLERANCE, relative  # noqa: E402
from control_composer.benchmarks.surroundings import commit, hardware  # noqa: E402
from control_composer.benchmarks.widths import NARROW, SD15, SDXL, Width, fill  # noqa: E402
from control_composer.control import Control, apply_control  # noqa: E402
from control_composer.nodes.load import load_source  # noqa: E402
from control_composer.tests.control.xs_reference import adapter_for, diffusers_unet, fused, reference  # noqa: E402

STRENGTH = 0.8
CPU = torch.device("cpu")
SD2: dict[str, Any] = {"use_linear_in_transformer": True, "context_dim": 1024}
NARROW_SD2 = NARROW | SD2 | {"context_dim": 32}
NARROW_XL = SDXL | {"model_channels": 32, "context_dim": 40, "num_head_channels": 32}
TWO = {
    "transformer_depth": [0, 0, 2, 2, 2, 2],
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 2, 2, 2],
    "transformer_depth_middle": 2,
}
REAL_SD2 = {name: value for name, value in (SD15 | SD2).items() if name != "num_heads"} | {"num_head_channels": 64}

# Name -> model, channels of the stream, their heads, diffusers' mix of time embeddings.
Setting = tuple[Width, tuple[int, ...], tuple[int, ...], float | None]
SETTINGS: dict[str, Setting] = {
    "SD2, a tenth of its width": (Width(NARROW_SD2, comfy.supported_models.SD15), (4, 8, 16, 16), (1, 1, 2, 2), 1.0),
    "SDXL, a tenth of its width": (Width(NARROW_XL, comfy.supported_models.SDXL), (8, 16, 32), (1, 1, 2), 1.0),
}
REAL: dict[str, Setting] = {
    "SD2.1 at its width": (Width(REAL_SD2, comfy.supported_models.SD15), (4, 8, 16, 16), (1, 1, 2, 2), 1.0),
    "SDXL at its width": (Width(SDXL | TWO, comfy.supported_models.SDXL), (32, 64, 128), (1, 1, 2), 1.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--real", action="store_true")
    options = parser.parse_args()
    print(f"{datetime.date.today()}, commit {commit()}, {hardware()}, torch {torch.__version__}, fp32")
    passed = True
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        for name, setting in (REAL if options.real else SETTINGS).items():
            for words, difference in differences(setting, Path(folder), options.folder):
                print(f"{name}: {words} {difference:.2e}", flush=True)
                passed &= difference <= TOLERANCE or "allowed" not in words
    print(f"allowed: {TOLERANCE}")
    sys.exit(0 if passed else 1)


def differences(setting: Setting, folder: Path, original: Path | None) -> Iterator[tuple[str, float]]:
    """What was compared, and the relative difference."""
    width, channels, heads, mix = setting
    inside = width.model(torch.float32)
    fill(inside.diffusion_model, 1)
    model = comfy.model_patcher.ModelPatcher(inside, load_device=CPU, offload_device=CPU)
    unet = diffusers_unet(model)
    adapter = adapter_for(unet, channels, heads, mix)
    path = folder / "xs.safetensors"
    metadata = {"num_attention_heads": json.dumps(heads), "time_embedding_mix": str(mix)}
    safetensors.torch.save_file(dict(adapter.state_dict()), path, metadata)
    image = torch.rand(1, 256, 256, 3, generator=torch.Generator().manual_seed(2))
    hint = image.movedim(-1, 1)
    plain, ours = output(model, width, None, image), output(model, width, path, image)
    yield "the control changes the output by", relative(ours[-1], plain[-1])
    theirs = reference(fused(unet, adapter), ours[:2], hint, STRENGTH)
    yield "from diffusers (allowed), its norms as UNet and adapter have them,", relative(ours[-1], theirs)
    del theirs
    theirs = reference(fused(unet, adapter, as_made=True), ours[:2], hint, STRENGTH)
    yield "from diffusers as UNetControlNetXSModel.from_unet makes it", relative(ours[-1], theirs)
    if original is not None and len(channels) == 4:
        network = authors(original, width.unet, channels[0] / width.unet["model_channels"])
        tensors = {name: x.clone() for name, x in network.state_dict().items()}
        safetensors.torch.save_file(tensors, path, metadata)
        ours = output(model, width, path, image)
        network.scale_list.mul_(STRENGTH)
        (x, timesteps, *_), given = ours[:2]
        theirs = network(x, hint, timesteps, given["context"], inside.diffusion_model)
        yield "from the authors' code (allowed)", relative(ours[-1], theirs)


def output(model: Any, width: Width, path: Path | None, image: Tensor) -> tuple[Any, Any, Tensor]:
    """What the UNet was called with at the first step of a run, and what it gave."""
    import nodes  # ComfyUI's

    calls: list[tuple[Any, Any, Tensor]] = []
    positive, negative = width.conditioning(3), width.conditioning(4)
    if path is not None:
        source, _ = load_source(path, model, "auto")
        positive, negative = apply_control(positive, negative, Control.unbound(source), image, STRENGTH)
    handle = model.model.diffusion_model.register_forward_hook(
        lambda _, args, kwargs, out: calls.append((args, dict(kwargs), out.clone())), with_kwargs=True
    )
    latent = {"samples": torch.zeros(1, 4, image.shape[1] // 8, image.shape[2] // 8)}
    nodes.common_ksampler(model, 5, 1, 1.0, "euler", "normal", positive, negative, latent)
    handle.remove()
    return calls[0]


def authors(folder: Path, unet: dict[str, Any], ratio: float) -> Any:
    """The authors' network for this UNet with random weights, without the model that it builds beside."""
    sys.path.insert(0, str(folder))
    for name in ("omegaconf", "omegaconf.listconfig"):  # of which it wants to know whether a setting is such a list
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].ListConfig = type("ListConfig", (list,), {})  # type: ignore[attr-defined]
    try:
        from ldm.modules.diffusionmodules.twoStreamControl import TwoStreamControlNet
    except ImportError as error:
        sys.exit(f"{folder} is no checkout of github.com/vislearn/ControlNet-XS, or lacks a package ({error}).")
    with torch.device("meta"):
        network = TwoStreamControlNet(
            image_size=32,
            in_channels=4,
            out_channels=4,
            hint_channels=3,
            model_channels=unet["model_channels"],
            attention_resolutions=[4, 2, 1],
            num_res_blocks=2,
            channel_mult=list(unet["channel_mult"]),
            num_head_channels=8,
            use_spatial_transformer=True,
            use_linear_in_transformer=True,
            transformer_depth=1,
            context_dim=unet["context_dim"],
            legacy=False,
            guiding="encoder_double",
            control_model_ratio=ratio,
        )
    network.to_empty(device="cpu")
    fill(network, 5)
    network.scale_list.fill_(1.0)
    return network.eval()


if __name__ == "__main__":
    main()
