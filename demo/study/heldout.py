"""Scenes that nothing was trained on, with their hints, and what is measured of pictures of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from ...evaluation.colour import block_colour_error
from ...evaluation.edges import edge_score
from ...evaluation.frechet import frechet_distance
from ...preprocessors.canny import canny
from ...training.whole import write_whole
from ..pairs import GRID, pictures
from ..scenes import SIZE, Scenes, sample_scenes
from .prompts import SETTINGS, Setting, prompts
from .recogniser import Recogniser, caption_accuracy, shape_accuracy
from .rows import Measures

SEED = 4
"""Training draws from 1, its watch from 2, docs/demo.md from 3."""
REAL_SEED = 6
REAL = 1000
"""Held-out scenes that FID compares with."""
NOISE_SEED = 4000
CPU = torch.device("cpu")


class HeldOut:
    """`count` scenes."""

    def __init__(self, count: int, recogniser: Recogniser | None, folder: Path, real: int = REAL) -> None:
        """`folder` keeps the features of the `real` scenes. Without the recogniser nothing can be measured, but drawn."""
        self.count, self.recogniser = count, recogniser
        self.scenes: Scenes = sample_scenes(count, SEED)
        self.truth = pictures(self.scenes, CPU).float().movedim(1, -1) / 255
        self.edges = canny(self.truth, low=100, high=200)
        small = torch.nn.functional.adaptive_avg_pool2d(self.truth.movedim(-1, 1), GRID)
        self.colours = torch.nn.functional.interpolate(small, size=(SIZE, SIZE), mode="nearest").movedim(1, -1)
        self.prompts: dict[Setting, list[str]] = {setting: prompts(self.scenes, setting) for setting in SETTINGS}
        self._real: Tensor | None = None
        if recogniser is not None:
            self._real = _features(recogniser, folder / f"real_features_{real}.safetensors", real)

    def noise(self, seed: int) -> Tensor:
        """(N, 4, 16, 16): the same for all systems."""
        return torch.randn((self.count, 4, 16, 16), generator=torch.Generator().manual_seed(NOISE_SEED + seed))

    def first(self, count: int) -> HeldOut:
        """The same, of the first scenes alone."""
        part = object.__new__(HeldOut)
        part.count, part.recogniser, part._real = count, self.recogniser, self._real
        rows = slice(0, count)
        part.scenes, part.truth = self.scenes[rows], self.truth[rows]
        part.edges, part.colours = self.edges[rows], self.colours[rows]
        part.prompts = {setting: told[rows] for setting, told in self.prompts.items()}
        return part

    def measures(self, drawn: Tensor, prompted: Sequence[str] | None = None) -> Measures:
        """Means over the pictures (N, 128, 128, 3); `prompted`: a prompt for each that is not the scene's own caption."""
        assert self.recogniser is not None and self._real is not None, "it is given where pictures are measured"
        seen = self.recogniser.see(drawn)
        captions = self.prompts["perfect"]
        found = canny(drawn, low=100, high=200)[..., 0]
        told = {
            "edge F1": edge_score(found, self.edges[..., 0]).f1,
            "colour error": block_colour_error(drawn, self.truth, GRID),
            "caption": caption_accuracy(seen, captions),
            "shapes": shape_accuracy(seen, captions),
            "contrast": drawn.flatten(1).std(dim=1),
        }
        if prompted is not None:
            told["prompted caption"] = caption_accuracy(seen, prompted)
            told["prompted shapes"] = shape_accuracy(seen, prompted)
        means = {name: float(values.mean()) for name, values in told.items()}
        return means | {"FID": frechet_distance(self.recogniser.features(drawn), self._real)}


def _features(recogniser: Recogniser, path: Path, real: int) -> Tensor:
    if not path.exists():
        scenes = sample_scenes(real, REAL_SEED)
        parts = [
            recogniser.features(pictures(scenes[slice(start, start + 50)], CPU).float().movedim(1, -1) / 255)
            for start in range(0, real, 50)
        ]
        features = {"features": torch.cat(parts)}
        write_whole(path, lambda beside: safetensors.torch.save_file(features, beside), "The study's real scenes")
    kept: Tensor = safetensors.torch.load_file(path)["features"]
    return kept
