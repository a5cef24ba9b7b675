"""A small network that tells what is in a picture of the demo world: its measure of captions, and its features for FID."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from ...training.whole import write_whole
from ..scenes import COLOURS, GROUNDS, MOST_SHAPES, SHAPES, Scenes, render, sample_scenes

log = logging.getLogger("demo.study")

_OF_PAIRS, _OF_GROUND = 48, 16
FEATURES = _OF_PAIRS + _OF_GROUND
SEED = 7
"""Of the scenes it learns from."""
SCENES, STEPS, BATCH, RATE = 12_800, 2_000, 32, 4e-3
_CHUNK, _HIDDEN = 32, 64
_PAIR_WEIGHT = 4.0
"""Two of 48 pairs are there: each that is counts as much as four that are not."""
FILE = "recogniser.safetensors"

_COLOUR_NAMES = tuple(COLOURS)
PAIRS = tuple((colour, shape) for colour in _COLOUR_NAMES for shape in SHAPES)
GROUND_PAIRS = tuple((kind, colour) for kind in GROUNDS for colour in _COLOUR_NAMES)


@dataclass(frozen=True)
class Seen:
    """What N pictures have in them."""

    pairs: Tensor
    """(N, 48) bool, in the order of PAIRS: is there such a shape in such a colour?"""
    ground: Tensor
    """(N,) index into GROUND_PAIRS"""

    @classmethod
    def of_scenes(cls, scenes: Scenes) -> Seen:
        """The truth."""
        there = torch.arange(MOST_SHAPES) < scenes.count[:, None]
        pairs = torch.zeros(len(scenes), len(PAIRS), dtype=torch.int64)
        pairs.scatter_add_(1, scenes.colour * len(SHAPES) + scenes.shape, there.long())
        return cls(pairs > 0, scenes.ground * len(COLOURS) + scenes.ground_colour)

    @property
    def shapes(self) -> Tensor:
        """(N, 6) bool, in the order of SHAPES: is there such a shape, in whatever colour?"""
        return self.pairs.view(-1, len(COLOURS), len(SHAPES)).any(dim=1)


@dataclass(frozen=True)
class Named:
    """What a prompt names."""

    pairs: tuple[tuple[str, str], ...]
    """(colour, shape); the colour is "" where none is named."""
    ground: tuple[str, str] | None
    """(kind, colour); without a word for its kind it is flat, as in every caption."""

    @classmethod
    def by(cls, prompt: str) -> Named:
        pairs, ground, colour, kind = [], None, "", "flat"
        for word in re.findall(r"\w+", prompt.lower()):
            if word in COLOURS:
                colour = word
            elif word in GROUNDS:
                kind = word
            elif word in SHAPES or word == "ground":
                if word == "ground":
                    ground = (kind, colour)
                else:
                    pairs.append((colour, word))
                colour, kind = "", "flat"
        return cls(tuple(pairs), ground)


def caption_accuracy(seen: Seen, prompts: Sequence[str]) -> Tensor:
    """(N,): of what a picture's prompt names, each shape with its colour and the ground with its kind and colour, the share that is seen.

    All of them count alike; sizes do not count. NaN for a prompt that names no colour and no ground.
    """
    shares = []
    for row, named in enumerate(map(Named.by, prompts)):
        found = [bool(seen.pairs[row, PAIRS.index(pair)]) for pair in named.pairs if pair[0]]
        if named.ground is not None and named.ground[1]:
            found.append(GROUND_PAIRS[int(seen.ground[row])] == named.ground)
        shares.append(sum(found) / len(found) if found else float("nan"))
    return torch.tensor(shares)


def shape_accuracy(seen: Seen, prompts: Sequence[str]) -> Tensor:
    """(N,): of the kinds of shape that a picture's prompt names, the share that is seen, in whatever colour. NaN where it names none."""
    shares = []
    for row, named in enumerate(map(Named.by, prompts)):
        kinds = {shape for _, shape in named.pairs}
        found = [bool(seen.shapes[row, SHAPES.index(kind)]) for kind in kinds]
        shares.append(sum(found) / len(found) if found else float("nan"))
    return torch.tensor(shares)


class Recogniser(nn.Module):
    """Whether a shape is there is asked of each of 8 × 8 places; the ground is asked of their mean and variance."""

    def __init__(self) -> None:
        super().__init__()
        widths = ((3, 16, 2), (16, 32, 1), (32, 48, 2), (48, 64, 2), (64, 64, 1))
        self.trunk = nn.Sequential(*(_layer(*width) for width in widths))
        self.places, self.ground_places = _layer(64, _OF_PAIRS), _layer(64, _OF_GROUND)
        self.pairs = nn.Conv2d(_OF_PAIRS, len(PAIRS), 1)
        self.ground = nn.Sequential(
            nn.Linear(2 * _OF_GROUND, _HIDDEN), nn.SiLU(), nn.Linear(_HIDDEN, len(GROUND_PAIRS))
        )

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, 48) of the pairs and (B, 24) of the ground, of pictures (B, 3, 64, 64) in -1..1."""
        seen = self.trunk(pictures)
        pairs: Tensor = self.pairs(self.places(seen)).amax(dim=(2, 3))
        ground = self.ground_places(seen)
        kinds: Tensor = self.ground(torch.cat([ground.mean(dim=(2, 3)), ground.var(dim=(2, 3))], dim=1))
        return pairs, kinds

    @torch.no_grad()
    def see(self, pictures: Tensor, batch: int = 32) -> Seen:
        """What pictures (N, 128, 128, 3) in 0..1 have in them."""
        parts = [self(_halved(part)) for part in pictures.split(batch)]
        return Seen(
            torch.cat([pairs for pairs, _ in parts]) > math.log(_PAIR_WEIGHT),
            torch.cat([ground for _, ground in parts]).argmax(dim=1),
        )

    @torch.no_grad()
    def features(self, pictures: Tensor, batch: int = 32) -> Tensor:
        """(N, 64) of pictures (N, 128, 128, 3) in 0..1: the last layers before the answers, averaged over the picture."""
        parts = []
        for part in pictures.split(batch):
            seen = self.trunk(_halved(part))
            parts.append(torch.cat([self.places(seen), self.ground_places(seen)], dim=1).mean(dim=(2, 3)))
        return torch.cat(parts)


def _layer(before: int, after: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.SiLU())


def recogniser(folder: Path, steps: int = STEPS) -> Recogniser:
    """From `folder`, where it is trained into first if it is not there yet (some minutes of one core)."""
    path = folder / FILE
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = Recogniser()
    if not path.exists():
        _train(network, steps)
        state = {name: value.contiguous() for name, value in network.state_dict().items()}
        write_whole(path, lambda beside: safetensors.torch.save_file(state, beside), "The study's recogniser")
    network.load_state_dict(safetensors.torch.load_file(path))
    return network.eval().requires_grad_(False)


def _train(network: Recogniser, steps: int) -> None:
    """Grounds first, which are harder to tell and would never be learned beside the shapes; then shapes."""
    scenes = sample_scenes(min(SCENES, steps * BATCH), SEED)
    truth = Seen.of_scenes(scenes)
    starts = range(0, len(scenes), _CHUNK)
    pictures = torch.cat([_halved(render(scenes[slice(start, start + _CHUNK)])).half() for start in starts])
    for phase, share in enumerate((4.0, 1.0)):
        _learn(network, steps if phase == 0 else steps // 2, share, pictures, truth, SEED + phase)


def _learn(network: Recogniser, steps: int, ground_share: float, pictures: Tensor, truth: Seen, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    network.train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-4)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        rows = torch.randint(0, len(pictures), (BATCH,), generator=random)
        pairs, ground = network(_worn(pictures[rows].float(), random))
        there = nn.functional.binary_cross_entropy_with_logits(
            pairs, truth.pairs[rows].float(), pos_weight=torch.tensor(_PAIR_WEIGHT), reduction="sum"
        )
        loss = there / BATCH + ground_share * nn.functional.cross_entropy(ground, truth.ground[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rates.step()
        if (step + 1) % 100 == 0:
            log.info("recogniser: step %d of %d, loss %.4f", step + 1, steps, loss.item())
    network.eval()


def _halved(pictures: Tensor) -> Tensor:
    """(B, 3, 64, 64), -1..1: half the size is enough to tell shapes."""
    return nn.functional.avg_pool2d(pictures.movedim(-1, 1), 2) * 2 - 1


def _worn(pictures: Tensor, random: torch.Generator) -> Tensor:
    """Half of them mirrored, half blurred, all with some noise: what is drawn is never as crisp as what is rendered."""
    mirrored, blurred = (torch.rand((2, len(pictures), 1, 1, 1), generator=random) < 0.5).unbind()
    pictures = torch.where(mirrored, pictures.flip(-1), pictures)
    soft = nn.functional.avg_pool2d(pictures, 3, 1, 1, count_include_pad=False)
    noise = (
        torch.randn(pictures.shape, generator=random) * 0.08 * torch.rand((len(pictures), 1, 1, 1), generator=random)
    )
    return torch.where(blurred, soft, pictures) + noise
