"""Reference control as sd-webui-controlnet's hook.py describes it, written anew for the test: hooks on the modules of the host's UNet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from torch import Tensor

SCALE = {"sd1": 0.18215, "sdxl": 0.13025}
"""Of the latents that a VAE gives."""
ADAIN_INPUT = {"sd1": (4, 5, 7, 8, 10, 11), "sdxl": (4, 5, 7, 8)}
ADAIN_OUTPUT = {"sd1": (0, 1, 2, 3, 4, 5, 6, 7), "sdxl": (0, 1, 2, 3, 4, 5)}


@dataclass
class Published:
    """`latents` (1 or B, 4, h, w) are the VAE's, `noise` (1, 4, h, w) that of the reference. `strength` is ours: how much of the published change."""

    model: Any
    kind: str
    latents: Tensor
    noise: Tensor
    attention: bool
    adain: bool
    style_fidelity: float
    attention_weight: float = 1.0
    adain_weight: float = 1.0
    strength: float = 1.0
    writing: bool = False
    uncond: list[int] = field(default_factory=list)
    undo: list[Any] = field(default_factory=list)
    written: int = 0

    def sampling(self) -> Any:
        """The model to sample."""
        watched = self.model.clone()
        watched.set_model_unet_function_wrapper(self.step)
        return watched

    def step(self, apply_model: Any, call: dict[str, Any]) -> Tensor:
        x, sigma, c = call["input"], call["timestep"], call["c"]
        per_chunk = len(x) // len(call["cond_or_uncond"])
        self.uncond = [row for row in range(len(x)) if call["cond_or_uncond"][row // per_chunk] == 1]
        s = sigma.view(-1, 1, 1, 1)
        clean = self.latents.repeat(len(x) // len(self.latents), 1, 1, 1) * SCALE[self.kind]
        reference = clean / (1 + s**2).sqrt() + self.noise * s / (1 + s**2).sqrt()
        unet = self.model.model.diffusion_model
        self.hook(unet)
        try:
            self.writing = True
            timesteps = self.model.model.model_sampling.timestep(sigma).float()
            options = dict(self.model.model_options.get("transformer_options", {}))
            unet(
                self.beside(reference).to(unet.dtype),
                timesteps,
                context=c["c_crossattn"].to(unet.dtype),
                y=c.get("y"),
                transformer_options=options,
            )
            self.written += 1
            self.writing = False
            out: Tensor = apply_model(x, sigma, **c)
        finally:
            for undo in self.undo:
                undo()
            self.undo.clear()
        return out

    def beside(self, reference: Tensor) -> Tensor:
        """With what an inpaint model reads beside it: no mask, and the reference's own latent."""
        if self.model.model.diffusion_model.in_channels == 4:
            return reference
        clean = (self.latents * SCALE[self.kind]).expand_as(reference)
        return torch.cat([reference, torch.zeros_like(reference)[:, 0:1], clean], dim=1)

    def hook(self, unet: Any) -> None:
        fidelity = self.style_fidelity ** (3 if self.kind == "sdxl" else 1)
        blocks = [module for module in unet.modules() if isinstance(module, BasicTransformerBlock)]
        blocks.sort(key=lambda block: -block.norm1.normalized_shape[0])
        for i, block in enumerate(blocks):
            if self.attention and self.attention_weight > i / len(blocks):
                self.hook_attention(block.attn1, fidelity)
        places = [(unet.middle_block, 0.0)]
        inputs, outputs = ADAIN_INPUT[self.kind], ADAIN_OUTPUT[self.kind]
        places += [(unet.input_blocks[at], 2 * (1 - w / len(inputs))) for w, at in enumerate(inputs)]
        places += [(unet.output_blocks[at], 2 * w / len(outputs)) for w, at in enumerate(outputs)]
        for place, threshold in places:
            if self.adain and self.adain_weight > threshold:
                self.hook_norm(place[-1], fidelity)

    def hook_attention(self, attn1: Any, fidelity: float) -> None:
        original, bank = attn1.forward, []

        def forward(x: Tensor, context: Any = None, value: Any = None, **options: Any) -> Tensor:
            plain = original(x, **options)
            if self.writing:
                bank.append(x.clone())
                return plain
            uc = original(x, context=torch.cat([x, *bank], dim=1), **options)
            c = uc.clone()
            c[self.uncond] = plain[self.uncond]
            return plain + self.strength * (fidelity * c + (1 - fidelity) * uc - plain)

        attn1.forward = forward
        self.undo.append(lambda: delattr(attn1, "forward"))

    def hook_norm(self, last: Any, fidelity: float) -> None:
        bank: list[tuple[Tensor, Tensor]] = []

        def after(module: Any, inputs: Any, x: Tensor) -> Tensor:
            mean = x.mean(dim=(2, 3), keepdim=True)
            deviation = ((x - mean) ** 2).mean(dim=(2, 3), keepdim=True).clamp(min=1e-6).sqrt()
            if self.writing:
                bank.append((mean, deviation))
                return x
            uc = (x - mean) / deviation * bank[0][1] + bank[0][0]
            c = uc.clone()
            c[self.uncond] = x[self.uncond]
            return x + self.strength * (fidelity * c + (1 - fidelity) * uc - x)

        self.undo.append(last.register_forward_hook(after).remove)
