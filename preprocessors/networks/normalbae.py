"""NormalBAE: surface normals from one picture. Bae et al., "Estimating and Exploiting the Aleatoric Uncertainty in Surface Normal Estimation"
(ICCV 2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import elu, interpolate, leaky_relu

from .efficientnet import EPSILON, HEAD, SEEN, STAGES, STEM, EfficientNet, normalisations
from .folding import STATISTICS, fold
from .weights import NOWHERE, check_weights, filled, shapes, unmarked

FINER = (1024, 512, 256, 128)
"""Channels of the decoder at 1/16, 1/8, 1/4 and 1/2 of the picture's size."""
HIDDEN = 128
NORMAL = 4
"""Numbers of a guess: x, y, z and how sure it is."""
LEAST_SURE = 0.01
ENCODER = "encoder.original_model"
UNUSED = f"{ENCODER}.bn2."
"""The encoder's last normalisation, whose result nothing reads."""
DECODER_EPSILON = 1e-5


class Widths(NamedTuple):
    """What narrow files have less of."""

    stem: int
    stages: tuple[int, ...]
    head: int
    finer: tuple[int, ...]
    hidden: int


class Encoder(nn.Module):
    def __init__(self, widths: Widths, operations: Any, **factory: Any):
        super().__init__()
        self.original_model = EfficientNet(widths.stem, widths.stages, widths.head, operations, **factory)

    def forward(self, picture: Tensor) -> list[Tensor]:
        return self.original_model(picture)  # type: ignore[no-any-return]


class Finer(nn.Module):
    """Features enlarged to the size of finer ones, and both mixed."""

    def __init__(self, channels: int, width: int, operations: Any, **factory: Any):
        super().__init__()
        self._net = nn.ModuleDict(
            {
                "0": operations.Conv2d(channels, width, 3, padding=1, **factory),
                "3": operations.Conv2d(width, width, 3, padding=1, **factory),
            }
        )

    def forward(self, x: Tensor, finer: Tensor) -> Tensor:
        x = torch.cat([enlarged(x, finer.shape[2:]), finer], 1)
        for convolution in self._net.values():
            x = leaky_relu(convolution(x))
        return x


class Pixelwise(nn.Module):
    """Features and a guess to the guess at twice the size, each pixel alone."""

    def __init__(self, channels: int, hidden: int, operations: Any, **factory: Any):
        super().__init__()
        widths = (channels + NORMAL, hidden, hidden, hidden, NORMAL)
        for index in range(4):
            self.add_module(str(2 * index), operations.Conv2d(widths[index], widths[index + 1], 1, **factory))

    def forward(self, features: Tensor, guess: Tensor) -> Tensor:
        first, *others = self.children()
        # Published as enlarging first; a linear map of each pixel gives the same before it, at a quarter of the work.
        x: Tensor = first(torch.cat([features, guess], 1))
        x = enlarged(x, torch.Size(2 * size for size in x.shape[2:]))
        for convolution in others:
            x = convolution(x.relu_())
        return x


class Decoder(nn.Module):
    def __init__(self, widths: Widths, operations: Any, **factory: Any):
        super().__init__()
        self.conv2 = operations.Conv2d(widths.head, widths.head, 1, **factory)
        channels = widths.head
        skipped = [widths.stages[number] for number in reversed(SEEN)]
        for number, (width, skip) in enumerate(zip(widths.finer, skipped, strict=True), start=1):
            self.add_module(f"up{number}", Finer(channels + skip, width, operations, **factory))
            channels = width
        _, eighth, quarter, half = widths.finer
        self.out_conv_res8 = operations.Conv2d(eighth, NORMAL, 3, padding=1, **factory)
        self.out_conv_res4 = Pixelwise(eighth, widths.hidden, operations, **factory)
        self.out_conv_res2 = Pixelwise(quarter, widths.hidden, operations, **factory)
        self.out_conv_res1 = Pixelwise(half, widths.hidden, operations, **factory)

    def forward(self, features: list[Tensor]) -> Tensor:
        half, quarter, eighth, sixteenth, coarsest = features
        up1, up2, up3, up4 = (self.get_submodule(f"up{number}") for number in (1, 2, 3, 4))
        at8 = up2(up1(self.conv2(coarsest), sixteenth), eighth)
        at4 = up3(at8, quarter)
        at2 = up4(at4, half)
        guess = self.out_conv_res4(at8, sure(self.out_conv_res8(at8)))
        guess = self.out_conv_res2(at4, sure(guess))
        return self.out_conv_res1(at2, sure(guess))  # type: ignore[no-any-return]


class NormalBAE(nn.Module):
    """Pictures (B, 3, H, W) by ImageNet's statistics, sides multiples of 32 -> unit normals (B, 3, H, W): x, y, z in -1..1, float32."""

    def __init__(self, widths: Widths, operations: Any = nn, **factory: Any):
        super().__init__()
        self.encoder = Encoder(widths, operations, **factory)
        self.decoder = Decoder(widths, operations, **factory)

    def forward(self, picture: Tensor) -> Tensor:
        return unit(self.decoder(self.encoder(picture))[:, :3].float())


def enlarged(x: Tensor, size: torch.Size) -> Tensor:
    return interpolate(x, tuple(size), mode="bilinear", align_corners=True)


def unit(normal: Tensor) -> Tensor:
    return normal / (normal.square().sum(1, keepdim=True).sqrt() + 1e-10)


def sure(guess: Tensor) -> Tensor:
    """A unit normal, and a positive certainty."""
    normal = unit(guess[:, :3].float()).to(guess.dtype)  # 1e-10 is nothing in half precision
    return torch.cat([normal, elu(guess[:, 3:]) + 1 + LEAST_SURE], 1)


def build_normalbae(
    weights: Mapping[str, Tensor], *, file: str = "NormalBAE", operations: Any = nn, dtype: torch.dtype = torch.float32
) -> NormalBAE:
    """The network of scannet.pt; its widths are read from the shapes. Raises PreprocessorError."""
    weights = {name: tensor for name, tensor in unmarked(weights).items() if not name.startswith(UNUSED)}
    widths = widths_of(weights)
    expected = shapes(NormalBAE(widths, device=NOWHERE))
    check_weights(file, "NormalBAE", weights, published(expected))
    for convolution, norm, epsilon in norms():
        fold(weights, norm, convolution, epsilon)
    weights = {name: tensor.reshape(expected[name]) for name, tensor in weights.items()}
    return filled(NormalBAE(widths, operations, device=NOWHERE, dtype=dtype), weights, dtype)


def norms() -> list[tuple[str, str, float]]:
    """Each convolution that a normalisation follows in the published file, that one, and its epsilon."""
    encoder = [(f"{ENCODER}.{convolution}", f"{ENCODER}.{norm}", EPSILON) for convolution, norm in normalisations()]
    decoder = [
        (f"decoder.up{number}._net.{at}", f"decoder.up{number}._net.{at + 1}", DECODER_EPSILON)
        for number in range(1, len(FINER) + 1)
        for at in (0, 3)
    ]
    return encoder + decoder


def published(expected: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the file, from those of the network."""
    made = {
        # The file's maps of single pixels are convolutions of one dimension.
        name: shape[:3] if name.startswith("decoder.out_conv_res") and "res8" not in name else shape
        for name, shape in expected.items()
    }
    for convolution, norm, _ in norms():
        channels = expected[f"{convolution}.weight"][0]
        made |= {f"{norm}.{part}": () if part == STATISTICS[-1] else (channels,) for part in STATISTICS}
        if convolution.startswith(ENCODER):
            del made[f"{convolution}.bias"]
    return made


def widths_of(weights: Mapping[str, Tensor]) -> Widths:
    """By names and shapes; where a name is missing, the published file's, so that the check names it."""

    def width(name: str, otherwise: int) -> int:
        found = weights.get(f"{name}.weight")
        return otherwise if found is None or found.ndim < 3 else found.shape[0]

    return Widths(
        width(f"{ENCODER}.conv_stem", STEM),
        tuple(
            width(f"{ENCODER}.blocks.{number}.0.{'conv_pwl' if number else 'conv_pw'}", stage.width)
            for number, stage in enumerate(STAGES)
        ),
        width(f"{ENCODER}.conv_head", HEAD),
        tuple(width(f"decoder.up{number}._net.0", otherwise) for number, otherwise in enumerate(FINER, start=1)),
        width("decoder.out_conv_res4.0", HIDDEN),
    )
