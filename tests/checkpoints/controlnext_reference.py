"""ControlNeXt's four networks out of diffusers' blocks, written after the repository's own (dvlab-research/ControlNeXt): what ours is compared with.

Arrangements: "SD1.5" (ControlNeXt-SD1.5), "SDXL" (ControlAny-SDXL of June 2024), "SDXL July" (ControlNeXt-SDXL at commit d1d16da), "August"
(ControlNeXt-SDXL and ControlNeXt-SD1.5-Training at commit ab4b3ac).
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.resnet import Downsample2D, ResnetBlock2D
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

REAL = {
    "SD1.5": {"widths": (128, 256, 256), "out": 1280},
    "SDXL": {"widths": (128, 256, 256), "out": 1280},
    "SDXL July": {"embedding": (64, 64, 128), "widths": (128, 256, 256), "out": 1280},
    "August": {"embedding": (64, 64, 128), "widths": (128, 256), "out": 320},
}
NARROW = {
    "SD1.5": {"widths": (16, 32, 32), "out": 128, "time": (32, 48)},
    "SDXL": {"widths": (16, 32, 32), "out": 128, "time": (32, 48)},
    "SDXL July": {"embedding": (8, 6, 16), "widths": (16, 32, 32), "out": 128, "time": (32, 48)},
    "August": {"embedding": (8, 6, 16), "widths": (16, 32), "out": 32, "time": (32, 48)},
}


class Reference(nn.Module):
    """`forward` gives the map and its factor, as the repository's networks do."""

    def __init__(
        self,
        release: str,
        widths: tuple[int, ...],
        out: int,
        embedding: tuple[int, ...] = (),
        time: tuple[int, int] = (128, 256),
        hint: int = 3,
    ) -> None:
        super().__init__()
        self.time_proj = Timesteps(time[0], True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(*time)
        if embedding:
            a, b, c = embedding
            padding = 0 if release == "SDXL July" else 1
            layers: list[Any] = [nn.Conv2d(hint, a, kernel_size=3, stride=2, padding=1), nn.GroupNorm(2, a), nn.ReLU()]
            layers += [nn.Conv2d(a, b, kernel_size=3, padding=padding), nn.GroupNorm(2, b), nn.ReLU()]
            layers += [nn.Conv2d(b, c, kernel_size=3, padding=padding), nn.GroupNorm(2, c), nn.ReLU()]
            self.embedding = nn.Sequential(*layers, *([nn.MaxPool2d(2, 2)] if release == "SDXL July" else []))
        before = embedding[-1] if embedding else hint
        groups = [4 if embedding else 1, 8, 8]
        self.down_res, self.down_sample = nn.ModuleList(), nn.ModuleList()
        for position, width in enumerate(widths):
            self.down_res.append(
                ResnetBlock2D(in_channels=before, out_channels=width, temb_channels=time[1], groups=groups[position])
            )
            self.down_sample.append(Downsample2D(width, use_conv=True, out_channels=width, padding=1, name="op"))
            before = width
        middle: list[Any] = [nn.Conv2d(before, before, 3, 1, 1), nn.ReLU()]
        if release == "SD1.5":
            middle.append(nn.Conv2d(before, before, 3, 1, 1))
        else:
            middle += [nn.GroupNorm(8, before), nn.Conv2d(before, before, 3, 1, 1), nn.GroupNorm(8, before)]
        self.mid_convs = nn.ModuleList([nn.Sequential(*middle), nn.Conv2d(before, out, 1)])
        self.scale: Any = nn.Parameter(torch.tensor(1.0)) if release in ("SD1.5", "SDXL") else 1.0
        self.release = release

    def forward(self, sample: Tensor, timesteps: Tensor) -> tuple[Tensor, Any]:
        emb = self.time_embedding(self.time_proj(timesteps.expand(sample.shape[0])).to(sample.dtype))
        if hasattr(self, "embedding"):
            sample = self.embedding(sample)
        for res, down in zip(self.down_res, self.down_sample, strict=True):
            sample = down(res(sample, emb))
        middle = self.mid_convs[0](sample)
        return self.mid_convs[1](middle + sample if hasattr(self, "embedding") else middle), self.scale


def added(sample: Tensor, control: Tensor, scale: Any, pooled_first: bool) -> Tensor:
    """What the repository's UNets add to their features `sample`; the SDXL one of August pools last, the others first."""
    size = sample.shape[-2:]
    if pooled_first:
        control = adaptive_avg_pool2d(control, size)
    mean, std = sample.mean(dim=(1, 2, 3), keepdim=True), sample.std(dim=(1, 2, 3), keepdim=True)
    control_mean, control_std = control.mean(dim=(1, 2, 3), keepdim=True), control.std(dim=(1, 2, 3), keepdim=True)
    control = (control - control_mean) * (std / (control_std + 1e-12)) + mean
    if not pooled_first:
        control = adaptive_avg_pool2d(control, size)
    return control * scale


def reference(release: str, seed: int = 0, **changes: Any) -> Reference:
    """With random weights, narrow unless told otherwise."""
    net = Reference(release, **NARROW[release] | changes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name == "scale":
                parameter.fill_(0.7)
            elif parameter.ndim > 1:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(0.1 * noise + (1.0 if "norm" in name and name.endswith("weight") else 0.1))
    return net.eval()
