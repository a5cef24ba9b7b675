"""Draws and measures every cell of the study that has no row yet, the most telling ones first."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ...training.whole import write_whole
from .base import Base
from .drawing import Precision, draw, finished, quick_velocity
from .guiding import CONDITIONS, WAYS, Guide, control_from
from .heldout import HeldOut
from .learn import PICTURES, control_file
from .prompts import SETTINGS
from .rows import Cell, Rows
from .systems import SYSTEMS, Run, Velocity

log = logging.getLogger("demo.study")

SCENES, REDRAWN, CHANCE = "the scenes themselves", "redrawn by the autoencoder", "other scenes (chance)"
REFERENCES = (SCENES, REDRAWN, CHANCE)


def plan(runs: Sequence[Run], scenes: int, guided: int, steps: int) -> Iterator[tuple[Cell, Run | None]]:
    """All cells, seed by seed: architectures, amounts of pictures, ways of guidance and conditions; references first."""
    for count in dict.fromkeys((scenes, guided)):
        yield from ((Cell(name, scenes=count, steps=0), None) for name in REFERENCES)
    for seed in dict.fromkeys(run.seed for run in runs):
        own = sorted(
            (run for run in runs if run.seed == seed), key=lambda run: (-run.pictures, SYSTEMS.index(run.system))
        )
        for run in own:
            cell = Cell(run.system, seed=seed, pictures=run.pictures, scenes=scenes, steps=steps)
            settings = SETTINGS if run.pictures == PICTURES[-1] else ("none", "perfect")
            yield from ((replace(cell, prompt=setting), run) for setting in settings)
    for run in runs:
        if run.system == "ControlNet" and run.pictures == PICTURES[-1]:
            cell = Cell(run.system, seed=run.seed, pictures=run.pictures, scenes=guided, steps=steps)
            for setting in ("none", "perfect"):
                yield from ((replace(cell, prompt=setting, way=way), run) for way in (*WAYS, *CONDITIONS))


class Measuring:
    """`guided`: of so many of the scenes the host draws its pictures."""

    def __init__(
        self,
        folder: Path,
        held_out: HeldOut,
        base: Base,
        *,
        guided: int = 24,
        steps: int = 20,
        precision: Precision = "fp32",
        velocity: Callable[[Run, Path, Any], Velocity] = quick_velocity,
        guide: Callable[[int], Guide] = Guide,
    ) -> None:
        self.folder, self.held_out, self.base = folder, held_out, base
        self.guided, self.steps, self.precision = min(guided, held_out.count), steps, precision
        self.rows = Rows(folder)
        self._velocity, self._make_guide = velocity, guide
        self._open: tuple[Run, Velocity] | None = None
        self._guide: Guide | None = None

    def draw(
        self, runs: Sequence[Run], ready: Callable[[Run, Path], bool] = finished, last_first: bool = False
    ) -> list[Run]:
        """The runs that are not trained yet; the pictures of all cells of the others are in the folder afterwards.

        `last_first`: in the other direction, for a process beside one that draws in this folder too.
        """
        waiting, cells = self._todo(runs, ready, lambda cell: self.path(cell).exists() or cell in self.rows)
        for cell, run, told in _timed(cells[::-1] if last_first else cells):
            self._pictures(cell, run)
            log.info("drawing %s: %s", told, cell.key)
        return waiting

    def run(self, runs: Sequence[Run], ready: Callable[[Run, Path], bool] = finished) -> list[Run]:
        """The runs that are not trained yet; all cells of the others have rows afterwards."""
        waiting, cells = self._todo(runs, ready, self.rows.__contains__)
        for cell, run, told in _timed(cells):
            held_out = self._scenes(cell)
            prompted = held_out.prompts["conflicting"] if cell.prompt == "conflicting" else None
            measures = held_out.measures(self._pictures(cell, run), prompted)
            self.rows.add(cell, measures)
            figures = ", ".join(f"{name} {value:.3f}" for name, value in measures.items())
            log.info("measuring %s: %s: %s", told, cell.key, figures)
        return waiting

    def path(self, cell: Cell) -> Path:
        """Of a cell's pictures."""
        return self.folder / "pictures" / f"{cell.key}.png"

    def _todo(
        self, runs: Sequence[Run], ready: Callable[[Run, Path], bool], done: Callable[[Cell], bool]
    ) -> tuple[list[Run], list[tuple[Cell, Run | None]]]:
        waiting = [run for run in runs if not ready(run, self.folder)]
        cells = plan(runs, self.held_out.count, self.guided, self.steps)
        return waiting, [(cell, run) for cell, run in cells if run not in waiting and not done(cell)]

    def _scenes(self, cell: Cell) -> HeldOut:
        return self.held_out if cell.scenes == self.held_out.count else self.held_out.first(cell.scenes)

    def _pictures(self, cell: Cell, run: Run | None) -> Tensor:
        """As they are kept, with 8 bits."""
        path = self.path(cell)
        if not path.exists():
            held_out = self._scenes(cell)
            keep(path, self._reference(cell.system, held_out) if run is None else self._drawn(cell, run, held_out))
        return torch.stack(kept(path))

    def _reference(self, name: str, held_out: HeldOut) -> Tensor:
        if name == REDRAWN:
            with torch.no_grad():
                latents = self.base.autoencoder.encode(held_out.truth.movedim(-1, 1))
                return self.base.autoencoder.decode(latents).clamp(0, 1).movedim(1, -1)
        return held_out.truth.roll(1, dims=0) if name == CHANCE else held_out.truth

    def _drawn(self, cell: Cell, run: Run, held_out: HeldOut) -> Tensor:
        prompts = held_out.prompts[cell.prompt]  # type: ignore[index]
        noise = self.held_out.noise(cell.seed)[: held_out.count]
        if not cell.way:
            if self._open is None or self._open[0] != run:
                self._open = (run, self._velocity(run, self.folder, self.base.unet))
            return draw(
                self._open[1], self.base, noise, held_out.edges, prompts, steps=self.steps, precision=self.precision
            )
        if self._guide is None:
            self._guide = self._make_guide(self.steps)
        edges = (control_from(control_file(run, self.folder, self.base.unet)), held_out.edges)
        if cell.way in WAYS:
            return self._guide.draw([edges], noise, prompts, WAYS[cell.way])
        colour = (self._guide.colour, held_out.colours)
        both = [edges, colour] if cell.way == "edges and colour" else [colour]
        return self._guide.draw(both, noise, prompts, WAYS["both branches"])


def _timed(cells: Sequence[tuple[Cell, Run | None]]) -> Iterator[tuple[Cell, Run | None, str]]:
    """Each with how far it is and for how many minutes it will go on."""
    started = time.monotonic()
    for number, (cell, run) in enumerate(cells):
        left = (time.monotonic() - started) / max(number, 1) * (len(cells) - number)
        yield cell, run, f"{number + 1} of {len(cells)}, {left / 60:.0f} min left"


def keep(path: Path, drawn: Tensor) -> None:
    """Pictures (N, H, W, 3) side by side as a PNG."""
    strip = torch.cat(list(drawn), dim=1).clamp(0, 1)
    image = Image.fromarray((strip * 255).round().byte().numpy())
    write_whole(path, lambda beside: image.save(beside, "png"), "The study's pictures")


def kept(path: Path) -> list[Tensor]:
    """Those of `keep`, each (H, W, 3) float in 0..1."""
    with Image.open(path) as image:
        width, height, data = image.width, image.height, image.convert("RGB").tobytes()
    strip = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(height, width, 3).float() / 255
    return list(strip.split(height, dim=1))


def names(runs: Iterable[Run]) -> str:
    return ", ".join(run.name for run in runs)
