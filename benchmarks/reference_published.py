"""sd-webui-controlnet's own reference hook beside ours: latents of the host's sampler, with the hook on the host's UNet.

    python host.py python benchmarks/reference_published.py FOLDER [--real]

FOLDER is a checkout of github.com/Mikubill/sd-webui-controlnet; of it only scripts/hook.py and scripts/enums.py are run, with stand-ins for the web UI's
modules that they import. The noise of the reference, which the original draws anew at every step, is ours in both. The models are narrow; --real adds
SD1.5 at its real width, which needs 6 GB of memory.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib
import logging
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import comfy.cli_args
import torch
from torch import Tensor

# In single precision and on the CPU wherever it runs: numbers are compared here, not speed. Before the host's other modules.
comfy.cli_args.args.cpu = True

import comfy.ldm.modules.attention  # noqa: E402
import comfy.ldm.modules.diffusionmodules.openaimodel  # noqa: E402
import comfy.ldm.modules.diffusionmodules.util  # noqa: E402
import comfy.model_patcher  # noqa: E402
import comfy.supported_models  # noqa: E402

from control_composer.benchmarks.residual_widths import TOLERANCE, relative  # noqa: E402
from control_composer.benchmarks.surroundings import commit, hardware  # noqa: E402
from control_composer.benchmarks.widths import NARROW, SD15, SDXL, Width, fill  # noqa: E402
from control_composer.control import Control, apply_control  # noqa: E402
from control_composer.control.reference import Mode, ReferenceNetwork  # noqa: E402
from control_composer.demo.world import load_world  # noqa: E402

NARROW_XL = SDXL | {"model_channels": 32, "context_dim": 40, "num_head_channels": 32}
MODELS = {
    "SD1.5, a tenth of its width": Width(NARROW, comfy.supported_models.SD15),
    "SDXL, a tenth of its width": Width(NARROW_XL, comfy.supported_models.SDXL),
}
REAL = {"SD1.5 at its width": Width(SD15, comfy.supported_models.SD15)}
MODES: dict[str, Mode] = {
    "reference_only": "attention",
    "reference_adain": "adain",
    "reference_adain+attn": "attention + adain",
}
FIDELITY, SEED, SIZE = 0.5, 7, (16, 24)
CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--real", action="store_true")
    options = parser.parse_args()
    print(f"{datetime.date.today()}, commit {commit()}, {hardware()}, torch {torch.__version__}, fp32")
    original = hook_of(options.folder)
    image = torch.rand(1, SIZE[0] * 8, SIZE[1] * 8, 3, generator=torch.Generator().manual_seed(2))
    passed = True
    with torch.inference_mode():
        vae = load_world().vae
        for name, width in (MODELS | (REAL if options.real else {})).items():
            for mode, difference, effect in compare(original, width, vae, image):
                print(
                    f"{name}, {mode}: latents differ by {difference:.2e} (the reference changes them by {effect:.2e})",
                    flush=True,
                )
                passed &= difference <= TOLERANCE < effect
    sys.exit(0 if passed else 1)


def compare(original: Any, width: Width, vae: Any, image: Tensor) -> list[tuple[str, float, float]]:
    """For each mode: ours and the original's, and the original's and no reference at all."""
    inside = width.model(torch.float32)
    fill(inside.diffusion_model, 1)
    model = comfy.model_patcher.ModelPatcher(inside, load_device=CPU, offload_device=CPU)
    conds = width.conditioning(3), width.conditioning(4)
    plain = sample(model, *conds)
    ours = {}
    for mode in MODES.values():
        network = ReferenceNetwork.of(inside, mode, style_fidelity=FIDELITY, seed=SEED)
        ours[mode] = sample(model, *apply_control(*conds, Control.unbound(network), image, vae=vae))
    theirs = Original(original, inside, vae, image)  # last, because it changes the UNet
    model.set_model_unet_function_wrapper(theirs.call)
    found = []
    for name, mode in MODES.items():
        theirs.param.preprocessor["name"] = name
        latents = sample(model, *conds)
        found.append((name, relative(ours[mode], latents), relative(latents, plain)))
    return found


def sample(model: Any, positive: Any, negative: Any) -> Tensor:
    import nodes  # ComfyUI's

    latent = {"samples": torch.zeros(1, 4, *SIZE)}
    # "simple": only sigmas of whole timesteps, to which the original rounds.
    (out,) = nodes.common_ksampler(model, 5, 3, 7.0, "euler", "simple", positive, negative, latent)
    samples: Tensor = out["samples"]
    return samples


class Original:
    """The hook on a UNet of the host, which it takes for the web UI's."""

    def __init__(self, original: Any, inside: Any, vae: Any, image: Tensor) -> None:
        self.inside = inside
        unet = inside.diffusion_model
        for block in unet.modules():
            if isinstance(block, comfy.ldm.modules.attention.BasicTransformerBlock):
                through_inner_forward(block)
        unet.forward = lambda **arguments: plain_forward(
            unet, **arguments
        )  # through the modules' own forward, which the hook replaces
        scale = inside.latent_format.scale_factor
        ldm = SimpleNamespace(is_sdxl=inside.adm_channels > 0)
        original.register_schedule(ldm)
        ldm.alphas_cumprod = ldm.sqrt_alphas_cumprod**2
        process = SimpleNamespace(
            sample=None,
            sd_model=SimpleNamespace(
                encode_first_stage=lambda x: vae.encode((x / 2 + 0.5).movedim(1, -1)),
                get_first_stage_encoding=lambda z: z * scale,
            ),
        )
        self.param = original.ControlParams(
            control_model=None,
            preprocessor={"name": "", "threshold_a": FIDELITY},
            hint_cond=image.movedim(-1, 1),
            weight=1.0,
            guidance_stopped=False,
            start_guidance_percent=0.0,
            stop_guidance_percent=1.0,
            advanced_weighting=None,
            control_model_type=original.ControlModelType.AttentionInjection,
            hr_hint_cond=None,
            global_average_pooling=False,
            soft_injection=False,
            cfg_injection=False,
        )
        original.UnetHook().hook(unet, ldm, [self.param], process)

    def call(self, apply_model: Any, call: dict[str, Any]) -> Tensor:
        """A call of the model as the web UI makes it: the branch of each row is marked by a token before its words."""
        x, sigma, cond = call["input"], call["timestep"], call["c"]
        sampling, context = self.inside.model_sampling, cond["c_crossattn"]
        marks = torch.tensor([-1024.0 if kind else 1024.0 for kind in call["cond_or_uncond"]])
        marks = marks.view(-1, 1, 1).expand(-1, 1, context.shape[-1])
        out = self.inside.diffusion_model.forward(
            x=sampling.calculate_input(sigma, x),
            timesteps=sampling.timestep(sigma).float(),
            context=torch.cat([marks, context], dim=1),
            y=cond.get("y"),
        )
        denoised: Tensor = sampling.calculate_denoised(sigma, out, x)
        return denoised


def through_inner_forward(block: Any) -> None:
    block._forward = block.forward
    block.forward = lambda x, context=None, transformer_options=None: block._forward(x, context=context)


def plain_forward(unet: Any, x: Tensor, timesteps: Tensor, context: Tensor, y: Tensor | None = None) -> Tensor:
    """A UNet of latent diffusion without a control."""
    emb = unet.time_embed(comfy.ldm.modules.diffusionmodules.util.timestep_embedding(timesteps, unet.model_channels))
    if y is not None:
        emb = emb + unet.label_emb(y)
    skips = []
    for block in unet.input_blocks:
        x = block(x, emb, context)
        skips.append(x)
    x = unet.middle_block(x, emb, context)
    for block in unet.output_blocks:
        x = block(torch.cat([x, skips.pop()], dim=1), emb, context)
    out: Tensor = unet.out(x)
    return out


def hook_of(folder: Path) -> Any:
    """The original's module, with stand-ins for what it imports of the web UI."""
    if not (folder / "scripts" / "hook.py").is_file():
        sys.exit(f"{folder} has no scripts/hook.py; give a checkout of github.com/Mikubill/sd-webui-controlnet.")
    scripts = package("scripts")
    scripts.__path__ = [str(folder / "scripts")]
    package("scripts.logging", logger=logging.getLogger("sd-webui-controlnet"))
    package("scripts.ipadapter")
    package("scripts.ipadapter.ipadapter_model", ImageEmbed=type("ImageEmbed", (), {}))
    package("scripts.controlnet_sparsectrl", SparseCtrl=type("SparseCtrl", (), {}))
    devices = {
        "dtype_vae": torch.float32,
        "dtype_unet": torch.float32,
        "device": CPU,
        "autocast": contextlib.nullcontext,
    }
    callbacks = SimpleNamespace(on_cfg_denoiser=lambda function: None)
    package(
        "modules",
        devices=package("modules.devices", **devices),
        lowvram=package("modules.lowvram"),
        shared=package("modules.shared", cmd_opts=SimpleNamespace(lowvram=False, medvram=False)),
        scripts=package("modules.scripts", script_callbacks=callbacks),
    )
    prompts = ("MulticondLearnedConditioning", "ComposableScheduledPromptConditioning", "ScheduledPromptConditioning")
    package("modules.prompt_parser", **{name: type(name, (), {}) for name in prompts})
    package("modules.processing", StableDiffusionProcessing=type("StableDiffusionProcessing", (), {}))
    for name in ("ldm", "ldm.modules", "ldm.modules.diffusionmodules", "ldm.models", "ldm.models.diffusion"):
        package(name)
    sys.modules["ldm.modules.attention"] = comfy.ldm.modules.attention
    sys.modules["ldm.modules.diffusionmodules.util"] = comfy.ldm.modules.diffusionmodules.util
    sys.modules["ldm.modules.diffusionmodules.openaimodel"] = comfy.ldm.modules.diffusionmodules.openaimodel
    package("ldm.models.diffusion.ddpm", extract_into_tensor=lambda values, t, shape: values[t].view(-1, 1, 1, 1))
    hook = importlib.import_module("scripts.hook")
    q_sample, noise = hook.predict_q_sample, torch.randn(4, *SIZE, generator=torch.Generator().manual_seed(SEED))
    hook.predict_q_sample = lambda ldm, start, t: q_sample(ldm, start, t, noise.expand_as(start))  # type: ignore[attr-defined]
    return hook


def package(name: str, **contents: Any) -> ModuleType:
    module = ModuleType(name)
    module.__path__ = []
    vars(module).update(contents)
    sys.modules[name] = module
    return module


if __name__ == "__main__":
    main()
