"""The demo world's autoencoder: TAESD's layout and keys, with narrower layers where pictures are large."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

CHANNELS = 4
FACTOR = 8
_WIDTHS = (16, 32, 48, 56)  # at 128, 64, 32 and 16 pixels
_HOST_WIDTH = 64  # the host's TAESD class has this width throughout


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.conv(x) + x)


class _Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


def _conv(before: int, after: int, **options: bool | int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, padding=1, **options)  # type: ignore[arg-type]


def _encoder() -> nn.Sequential:
    layers: list[nn.Module] = [_conv(3, _WIDTHS[0]), _Block(_WIDTHS[0])]
    for before, after in pairwise(_WIDTHS):
        layers += [_conv(before, after, stride=2, bias=False), *(_Block(after) for _ in range(3))]
    return nn.Sequential(*layers, _conv(_WIDTHS[-1], CHANNELS))


def _decoder() -> nn.Sequential:
    layers: list[nn.Module] = [_Clamp(), _conv(CHANNELS, _WIDTHS[3]), nn.ReLU()]
    for before, after in pairwise(_WIDTHS[::-1]):
        layers += [*(_Block(before) for _ in range(3)), nn.Upsample(scale_factor=2), _conv(before, after, bias=False)]
    return nn.Sequential(*layers, _Block(_WIDTHS[0]), _conv(_WIDTHS[0], 3))


class Autoencoder(nn.Module):
    """Pictures (N, 3, H, W) in 0..1 <-> latents (N, 4, H/8, W/8) of about unit variance."""

    def __init__(self) -> None:
        super().__init__()
        self.taesd_encoder = _encoder()
        self.taesd_decoder = _decoder()
        self.vae_scale = nn.Parameter(torch.tensor(1.0), requires_grad=False)
        self.vae_shift = nn.Parameter(torch.tensor(0.0), requires_grad=False)

    def encode(self, picture: Tensor) -> Tensor:
        latent: Tensor = self.taesd_encoder(picture) / self.vae_scale + self.vae_shift
        return latent

    def decode(self, latent: Tensor) -> Tensor:
        picture: Tensor = self.taesd_decoder((latent - self.vae_shift) * self.vae_scale)
        return picture


def host_state_dict(narrow: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """The same autoencoder at the width that the host's TAESD class expects, filled up with zeros.

    A channel without weights and bias stays zero through ReLU and sum, so pictures and latents do not change.
    """
    wide: OrderedDict[str, Tensor] = OrderedDict()
    for key, tensor in narrow.items():
        if tensor.ndim == 0:
            wide[key] = tensor.clone()
            continue
        outer = {"taesd_encoder.14": CHANNELS, "taesd_decoder.19": 3}
        fixed_out = next((size for name, size in outer.items() if key.startswith(name + ".")), None)
        inputs = {"taesd_encoder.0": 3, "taesd_decoder.1": CHANNELS}
        fixed_in = next((size for name, size in inputs.items() if key.startswith(name + ".")), None)
        shape = list(tensor.shape)
        shape[0] = fixed_out or _HOST_WIDTH
        if tensor.ndim == 4:
            shape[1] = fixed_in or _HOST_WIDTH
        filled = tensor.new_zeros(shape)
        filled[tuple(slice(0, size) for size in tensor.shape)] = tensor
        wide[key] = filled
    return wide
