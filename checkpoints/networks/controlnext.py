"""ControlNeXt's network (dvlab-research/ControlNeXt, models/controlnet.py), in the arrangements of its four releases."""

from __future__ import annotations

from typing import Any

from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from torch import Tensor, empty
from torch.nn import MaxPool2d, Module, ModuleList, Parameter, ReLU, Sequential
from torch.nn.functional import silu

from ..controlnext import EMBEDDING_GROUPS, MIDDLE_GROUPS, ControlNeXtHyperparameters

# What diffusers' blocks have where they are not told, and torch's own norms.
BLOCK_EPS, EPS = 1e-6, 1e-5


class ControlNeXt(Module):
    """Hints -> one map of features, at an eighth of their pixels, or with the first three releases at the sizes near the UNet's middle.

    `embed` is what does not depend on the timestep; of the releases without a hint embedding it is the hint itself.
    """

    def __init__(self, net: ControlNeXtHyperparameters, operations: Any, **factory: Any) -> None:
        super().__init__()
        self.net = net

        def conv(before: int, after: int, kernel: int = 3, stride: int = 1, padding: int | None = None) -> Any:
            padding = kernel // 2 if padding is None else padding
            return operations.Conv2d(before, after, kernel, stride=stride, padding=padding, **factory)

        def norm(groups: int, channels: int) -> Any:
            return operations.GroupNorm(groups, channels, eps=EPS, **factory)

        self.scale = Parameter(empty((), **factory), requires_grad=False) if net.scaled else None
        self.time_embedding = TimeEmbedding(net.time_features, net.time_channels, operations, **factory)
        self.embedding = None
        if net.embedding:
            layers: list[Module] = []
            before = net.hint_channels
            # The July release has no padding behind its first convolution, and a pooling instead of one halving.
            inner = 0 if net.release == "SDXL July" else 1
            for position, width in enumerate(net.embedding):
                first = position == 0
                layers.append(conv(before, width, stride=2 if first else 1, padding=1 if first else inner))
                layers += [norm(EMBEDDING_GROUPS, width), ReLU()]
                before = width
            if net.release == "SDXL July":
                layers.append(MaxPool2d(2, 2))
            self.embedding = Sequential(*layers)

        self.down_res, self.down_sample = ModuleList(), ModuleList()
        for position, (before, width) in enumerate(zip(net.inputs(), net.widths, strict=True)):
            block = ResidualBlock(before, width, net.time_channels, net.groups(position), operations, **factory)
            self.down_res.append(block)
            self.down_sample.append(Halving(width, operations, **factory))
        last = net.widths[-1]
        middle = [conv(last, last), ReLU(), conv(last, last)]
        if net.release != "SD1.5":
            middle = [*middle[:2], norm(MIDDLE_GROUPS, last), middle[2], norm(MIDDLE_GROUPS, last)]
        self.mid_convs = ModuleList([Sequential(*middle), conv(last, net.out_channels, kernel=1)])

    def embed(self, hint_bchw: Tensor) -> Tensor:
        """Hints (N, channels, pixels) in 0..1 -> (N, width, a half or a quarter of the pixels)."""
        return hint_bchw if self.embedding is None else self.embedding(hint_bchw)

    def forward(self, embedding: Tensor, timesteps: Tensor) -> Tensor:
        """(N or 1, …) and (N or 1) timesteps -> (N, out channels, height, width)."""
        time = timestep_embedding(timesteps, self.net.time_features, repeat_only=False).to(embedding.dtype)
        time = self.time_embedding(time)
        x = embedding
        for block, halving in zip(self.down_res, self.down_sample, strict=True):
            x = halving(block(x, time))
        middle, last = self.mid_convs
        found: Tensor = last(middle(x) + x if self.net.embedding else middle(x))
        return found

    def factor(self, like: Tensor) -> Tensor | float:
        """The learned factor of the map, behind its standardisation."""
        return 1.0 if self.scale is None else self.scale.to(like)


class TimeEmbedding(Module):
    """Sinusoids (N, features) -> (N, channels)."""

    def __init__(self, features: int, channels: int, operations: Any, **factory: Any) -> None:
        super().__init__()
        self.linear_1 = operations.Linear(features, channels, **factory)
        self.linear_2 = operations.Linear(channels, channels, **factory)

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = self.linear_2(silu(self.linear_1(features)))
        return found


class Halving(Module):
    """(N, channels, height, width) -> half of the size, rounded up."""

    def __init__(self, channels: int, operations: Any, **factory: Any) -> None:
        super().__init__()
        self.conv = operations.Conv2d(channels, channels, 3, stride=2, padding=1, **factory)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.conv(x)
        return found


class ResidualBlock(Module):
    """diffusers' `ResnetBlock2D` as it is by default."""

    def __init__(self, before: int, after: int, time: int, groups: int, operations: Any, **factory: Any) -> None:
        super().__init__()
        self.norm1 = operations.GroupNorm(groups, before, eps=BLOCK_EPS, **factory)
        self.conv1 = operations.Conv2d(before, after, 3, padding=1, **factory)
        self.time_emb_proj = operations.Linear(time, after, **factory)
        self.norm2 = operations.GroupNorm(groups, after, eps=BLOCK_EPS, **factory)
        self.conv2 = operations.Conv2d(after, after, 3, padding=1, **factory)
        self.conv_shortcut = operations.Conv2d(before, after, 1, **factory) if before != after else None

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        inner = self.conv1(silu(self.norm1(x))) + self.time_emb_proj(silu(time))[:, :, None, None]
        inner = self.conv2(silu(self.norm2(inner)))
        found: Tensor = inner + (x if self.conv_shortcut is None else self.conv_shortcut(x))
        return found
