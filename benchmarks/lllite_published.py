"""kohya-ss's own LLLite node beside ours: latents of the host's sampler, and each module at SDXL's real width.

    python host.py python benchmarks/lllite_published.py FOLDER [--real]

FOLDER is a checkout of github.com/kohya-ss/ControlNet-LLLite-ComfyUI. Its class makes the files, of random weights, for the layers that sd-scripts
trains. The models are narrow; --real adds SD1.5 at its real width, which needs 5 GB of memory.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import comfy.cli_args
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
from control_composer.benchmarks.widths import NARROW, SD15, SDXL, Width, fill  # noqa: E402
from control_composer.control import Control, apply_control  # noqa: E402
from control_composer.control.lllite import LLLiteNetwork  # noqa: E402
from control_composer.nodes.load import load_source  # noqa: E402

NARROW_XL = SDXL | {"model_channels": 32, "context_dim": 40, "num_head_channels": 32}
MODELS = {
    "SD1.5, a tenth of its width": Width(NARROW, comfy.supported_models.SD15),
    "SDXL, a tenth of its width": Width(NARROW_XL, comfy.supported_models.SDXL),
}
REAL = {"SD1.5 at its width": Width(SD15, comfy.supported_models.SD15)}
EMBEDDING, BOTTLENECK, STRENGTH = 32, 64, 0.8
CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--real", action="store_true")
    options = parser.parse_args()
    print(f"{datetime.date.today()}, commit {commit()}, {hardware()}, torch {torch.__version__}, fp32")
    original = node_of(options.folder)
    passed = True
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        path = Path(folder) / "lllite.safetensors"
        for name, width in (MODELS | (REAL if options.real else {})).items():
            difference, effect = latents(original, width, path)
            print(f"{name}: latents differ by {difference:.2e} (the control changes them by {effect:.2e})", flush=True)
            passed &= difference <= TOLERANCE < effect
        count, difference = modules_at_real_width(original, path)
        print(f"SDXL at its width: {count} modules alone, largest difference {difference:.2e} (allowed {TOLERANCE})")
    sys.exit(0 if passed and difference <= TOLERANCE else 1)


def node_of(folder: Path) -> Any:
    path = folder / "node_control_net_lllite.py"
    spec = importlib.util.spec_from_file_location("node_control_net_lllite", path)
    if not path.is_file() or spec is None or spec.loader is None:
        sys.exit(f"{folder} has no {path.name}; give a checkout of github.com/kohya-ss/ControlNet-LLLite-ComfyUI.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(original: Any, unet: Any, path: Path) -> dict[str, Any]:
    """A file for this UNet, and the original's modules in it, by their names."""
    modules: dict[str, Any] = {}
    # A token of SD1's middle is a square of 64 pixels, for which there is no depth.
    middle = len(unet.input_blocks) == 9
    for place, layer in unet.named_modules():
        if not re.search(r"attn1\.to_[qkv]$|attn2\.to_q$", place):
            continue
        part, index = place.split(".")[:2]
        if part == "output_blocks" or (part == "middle_block" and not middle):
            continue
        depth = 3 if part == "middle_block" or int(index) > 5 else 1 if int(index) <= 2 else 2
        name = f"lllite_unet_{place.replace('.', '_')}"
        module = original.LLLiteModule(name, False, layer.in_features, depth, EMBEDDING, BOTTLENECK, 1.0, 0, 0, 0)
        fill(module, len(modules))
        modules[name] = module
    tensors = {f"{name}.{key}": x for name, module in modules.items() for key, x in module.state_dict().items()}
    safetensors.torch.save_file(tensors, path)
    return modules


def latents(original: Any, width: Width, path: Path) -> tuple[float, float]:
    """Between ours and the original's, and between the original's and no control at all."""
    inside = width.model(torch.float32)
    fill(inside.diffusion_model, 1)
    model = comfy.model_patcher.ModelPatcher(inside, load_device=CPU, offload_device=CPU)
    write(original, inside.diffusion_model, path)
    image = torch.rand(1, 128, 192, 3, generator=torch.Generator().manual_seed(2))
    positive, negative = width.conditioning(3), width.conditioning(4)
    plain = sample(model, positive, negative)
    (patched,) = original.LLLiteLoader().load_lllite(model, str(path.resolve()), image, STRENGTH, 0, 0.0, 0.0)
    theirs = sample(patched, positive, negative)
    source, _ = load_source(path, model, "auto")
    ours = sample(model, *apply_control(positive, negative, Control.unbound(source), image, STRENGTH))
    return relative(ours, theirs), relative(theirs, plain)


def sample(model: Any, positive: Any, negative: Any) -> Tensor:
    import nodes  # ComfyUI's

    latent = {"samples": torch.zeros(1, 4, 16, 24)}
    (out,) = nodes.common_ksampler(model, 5, 3, 7.0, "euler", "normal", positive, negative, latent)
    samples: Tensor = out["samples"]
    return samples


def modules_at_real_width(original: Any, path: Path) -> tuple[int, float]:
    """How many there are, and the largest difference of what one of them adds to random tokens at 512 × 768 pixels."""
    with torch.device("meta"):
        unet = Width(SDXL, comfy.supported_models.SDXL).model(torch.float32, "meta").diffusion_model
    theirs = write(original, unet, path)
    source, _ = load_source(path, None, "auto")
    generator = torch.Generator().manual_seed(6)
    hint = torch.rand(1, 3, 512, 768, generator=generator)
    differences = []
    assert isinstance(source, LLLiteNetwork)
    embeddings = source.embed_hint(hint)
    for place, embedding in zip(source.net.modules, embeddings, strict=True):
        module = theirs[place.name]
        module.set_cond_image(hint * 2 - 1)
        tokens = torch.randn(2, embedding.shape[1] * embedding.shape[2], place.width, generator=generator)
        ours = source.module.places[place.name](tokens, embedding.flatten(1, 2))
        differences.append(relative(ours, module(tokens)))
    return len(differences), max(differences)


if __name__ == "__main__":
    main()
