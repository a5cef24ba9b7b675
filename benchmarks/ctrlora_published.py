"""CtrLoRA's own classes beside ours, from two files of the same random weights to the residuals for a picture.

    python host.py python benchmarks/ctrlora_published.py FOLDER [--real]

FOLDER is a checkout of github.com/xyfJASON/ctrlora. Its classes for training make the weights, its tool_extract_weights.py the two files, its classes
for inference and its autoencoder the residuals; what it imports for training alone (pytorch_lightning, omegaconf, the samplers) is left empty here.
Narrow unless --real, which needs 9 GB of memory and 2 GB on disk.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import importlib.util
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import comfy.cli_args
import torch
from torch import Tensor, nn

# In single precision and on the CPU wherever it runs: numbers are compared here, not speed. Before the host's other modules.
comfy.cli_args.args.cpu = True

import comfy.sd  # noqa: E402

from control_composer.benchmarks.residual_widths import TOLERANCE, relative  # noqa: E402
from control_composer.benchmarks.surroundings import commit, hardware  # noqa: E402
from control_composer.checkpoints import open_control  # noqa: E402
from control_composer.checkpoints.base import ConnectedBase  # noqa: E402
from control_composer.checkpoints.pair import pair  # noqa: E402
from control_composer.control.ctrlora import CtrLoraNetwork  # noqa: E402

RANK = {False: 8, True: 128}
SCALE_FACTOR = 0.18215  # configs/inference/ctrlora_sd15_rank128_1lora.yaml
EMPTY: dict[str, dict[str, object]] = {
    "pytorch_lightning": {"LightningModule": nn.Module},
    "omegaconf": {"OmegaConf": None},
    "omegaconf.listconfig": {"ListConfig": tuple},
    "ldm.models.diffusion.ddpm": {"LatentDiffusion": nn.Module},
    "ldm.models.diffusion.ddim": {"DDIMSampler": None},
    "cldm.ddim_hacked": {"DDIMSampler": None},
    "cldm.model": {"create_model": None, "load_state_dict": None},
}


class Original:
    """What is used of the repository."""

    def __init__(self, folder: Path) -> None:
        sys.path.insert(0, str(folder))
        for name, content in EMPTY.items():
            module = types.ModuleType(name)
            vars(module).update(content)
            sys.modules[name] = module
        self.finetune = importlib.import_module("cldm.cldm_ctrlora_finetune").ControlNetFinetune
        self.inference = importlib.import_module("cldm.cldm_ctrlora_inference").ControlNetInference
        self.autoencoder = importlib.import_module("ldm.models.autoencoder").AutoencoderKL
        path = folder / "scripts" / "tool_extract_weights.py"
        spec = importlib.util.spec_from_file_location("tool_extract_weights", path)
        assert spec is not None and spec.loader is not None
        self.tool = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.tool)


def settings(real: bool) -> dict[str, Any]:
    """configs/inference/ctrlora_sd15_rank128_1lora.yaml, or a tenth of its widths."""
    return {
        "image_size": 32,
        "in_channels": 4,
        "hint_channels": 3,
        "model_channels": 320 if real else 32,
        "attention_resolutions": [4, 2, 1],
        "num_res_blocks": 2,
        "channel_mult": [1, 2, 4, 4],
        "num_heads": 8,
        "use_spatial_transformer": True,
        "transformer_depth": 1,
        "context_dim": 768 if real else 24,
        "legacy": False,
    }


def autoencoder_settings(real: bool) -> dict[str, Any]:
    return {
        "double_z": True,
        "z_channels": 4,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 128 if real else 32,
        "ch_mult": [1, 2, 4, 4] if real else [1, 1, 1, 1],
        "num_res_blocks": 2,
        "attn_resolutions": [],
        "dropout": 0.0,
    }


def filled(net: Any, seed: int) -> Any:
    """Random weights everywhere, of a size that keeps activations near one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.copy_(0.1 * noise + (1.0 if name.endswith("weight") else 0.0))
            else:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
    return net.eval().requires_grad_(False)


def write_files(original: Original, folder: Path, real: bool) -> tuple[Path, Path]:
    """LoRA and base as the repository's tool writes them, of two networks whose norms and zero convolutions differ."""
    lora, base = folder / "lora.ckpt", folder / "base.ckpt"
    for path, seed, extract in ((base, 1, original.tool.extract_control), (lora, 2, original.tool.extract_lora)):
        net = filled(original.finetune(lora_rank=RANK[real], **settings(real)), seed)
        torch.save(extract({f"control_model.{name}": x for name, x in net.state_dict().items()}), path)
    return lora, base


class Whole(nn.Module):
    """Something with a `control_model`, so that names of the files are those of its parts."""

    def __init__(self, control_model: nn.Module) -> None:
        super().__init__()
        self.control_model = control_model


def published(original: Original, lora: Path, base: Path, real: bool) -> Any:
    """The network for inference with both files, in the order of the repository's api.py."""
    net = original.inference(lora_rank=RANK[real], lora_num=1, **settings(real))
    whole = Whole(net)

    def of_lora(name: str) -> bool:
        return any(part in name for part in ("lora_layer", "zero_convs", "middle_block_out", "norm"))

    state = torch.load(base, weights_only=True)
    whole.load_state_dict({name: x for name, x in state.items() if not of_lora(name)}, strict=False)
    state = torch.load(lora, weights_only=True)
    net.switch_lora(0)
    found = whole.load_state_dict({name: x for name, x in state.items() if of_lora(name)}, strict=False)
    assert not found.unexpected_keys
    net.copy_weights_to_switchable()
    return net.eval().requires_grad_(False)


def compare(original: Original, folder: Path, real: bool) -> list[float]:
    lora, base = write_files(original, folder, real)
    config = autoencoder_settings(real)
    encoder = filled(original.autoencoder(ddconfig=config, lossconfig={"target": "torch.nn.Identity"}, embed_dim=4), 3)
    vae = comfy.sd.VAE(
        sd=encoder.state_dict(), config={"params": {"ddconfig": config, "embed_dim": 4}}, dtype=torch.float32
    )
    generator = torch.Generator().manual_seed(4)
    picture = torch.rand(2, 3, 128, 192, generator=generator)
    context = torch.randn(2, 77, settings(real)["context_dim"], generator=generator)
    timesteps = torch.tensor([13, 977])

    # ControlInferenceLDM.apply_model, with the mean of the distribution that it draws from.
    latent = SCALE_FACTOR * encoder.encode(picture).mode()
    net = published(original, lora, base, real)
    theirs: list[Tensor] = net(hint=latent, timesteps=timesteps, context=context)
    del net

    width, text = settings(real)["model_channels"], settings(real)["context_dim"]
    model = ConnectedBase("the original", width, (1, 2, 4, 4), (2,) * 4, text, None, settings(real)["num_heads"], -1)
    loaded = pair(open_control(lora, model), open_control(base, model)).load()
    print(loaded.describe())
    network = CtrLoraNetwork.from_module(loaded.built.module, name=lora.name, base=loaded.match.base).with_vae(vae)
    found = network.residuals(torch.zeros_like(latent), network.embed_hint(picture), timesteps, context)
    ours = [residual for residual in (*found.output, *found.middle) if residual is not None]
    return [relative(one, other) for one, other in zip(ours, theirs, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("original", type=Path, metavar="FOLDER", help="a checkout of xyfJASON/ctrlora")
    parser.add_argument("--real", action="store_true", help="the published widths")
    options = parser.parse_args()
    print(f"{datetime.date.today()}, commit {commit()}, {hardware()}, torch {torch.__version__}, fp32")
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        errors = compare(Original(options.original), Path(folder), options.real)
    print(f"{len(errors)} residuals, largest difference {max(errors):.2e} (allowed {TOLERANCE})")
    if max(errors) > TOLERANCE:
        raise SystemExit(f"an error is above {TOLERANCE}")


if __name__ == "__main__":
    main()
