"""Measures the shipped demo world through the host's sampler: `python host.py python -m control_composer.demo.measure`.

Every figure of docs/demo.md comes from here: 100 scenes that training has not seen, KSampler with 20 steps of euler at CFG 4, fixed noise.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..evaluation.colour import block_colour_error
from ..evaluation.edges import edge_score
from ..preprocessors.canny import canny
from .pairs import GRID
from .scenes import SIZE, render, sample_scenes
from .sheets import save_sheet
from .train import use_cpu_without_cuda
from .world import CONTROLS, World, load_world

log = logging.getLogger("demo.measure")

SEED = 3  # training drew from 1, its watch from 2
STEPS, GUIDANCE = 20, 4.0
DOCS = Path(__file__).resolve().parents[1] / "docs" / "demo"
_BATCH = 20


@dataclass(frozen=True)
class Score:
    """What a set of pictures reaches, averaged over the scenes."""

    f1: float  # edges, 2 pixels tolerance
    colour: float  # mean absolute error per block, 0..1


class Bench:
    """Held-out scenes with their hints, and the host's sampler to draw them with."""

    def __init__(self, world: World, count: int) -> None:
        self.world, self.count = world, count
        scenes = sample_scenes(count, SEED)
        self.captions = scenes.captions()
        self.truth = render(scenes)
        self.edges = canny(self.truth, low=100, high=200)
        small = torch.nn.functional.adaptive_avg_pool2d(self.truth.movedim(-1, 1), GRID)
        self.colours = torch.nn.functional.interpolate(small, size=(SIZE, SIZE), mode="nearest").movedim(1, -1)

    def draw(self, controls: Sequence[tuple[Any, Tensor, float]], captions: Sequence[str] | None = None) -> Tensor:
        """Pictures (N, 128, 128, 3): `controls` are (control, hints of all scenes, strength)."""
        from ..control import apply_control

        captions = self.captions if captions is None else captions
        drawn = []
        for start in range(0, self.count, _BATCH):
            rows = slice(start, min(start + _BATCH, self.count))
            count = rows.stop - rows.start
            positive, negative = self.world.encode(*captions[rows]), self.world.encode(*[""] * count)
            for control, hints, strength in controls:
                positive, negative = apply_control(positive, negative, control, hints[rows], strength)
            latent = _ksampler(self.world.model, positive, negative, count, seed=start)
            drawn.append(self.world.vae.decode(latent).detach().clamp(0, 1).cpu().float())
        return torch.cat(drawn)

    def score(self, drawn: Tensor, edges: Tensor | None = None) -> Score:
        found = canny(drawn, low=100, high=200)[..., 0]
        wanted = (self.edges if edges is None else edges)[..., 0]
        return Score(
            float(edge_score(found, wanted).f1.mean()), float(block_colour_error(drawn, self.truth, GRID).mean())
        )


def measure(bench: Bench, edges: Any, colour: Any) -> tuple[dict[str, Score], dict[str, Tensor]]:
    """Scores and pictures by title."""
    redrawn = bench.world.vae.decode(bench.world.vae.encode(bench.truth)).detach().clamp(0, 1).cpu().float()
    settings: dict[str, list[tuple[Any, Tensor, float]]] = {
        "no control": [],
        "edge control": [(edges, bench.edges, 1.0)],
        "colour control": [(colour, bench.colours, 1.0)],
        "both controls": [(edges, bench.edges, 1.0), (colour, bench.colours, 1.0)],
    }
    pictures = {"the scene, redrawn by the autoencoder": redrawn}
    for title, controls in settings.items():
        pictures[title] = bench.draw(controls)
        log.info("%s: %s", title, bench.score(pictures[title]))
    empty = [""] * bench.count
    pictures["edge control, empty prompt"] = bench.draw(settings["edge control"], empty)
    pictures["both controls, empty prompt"] = bench.draw(settings["both controls"], empty)
    scores = {title: bench.score(drawn) for title, drawn in pictures.items()}
    scores["another scene's picture (chance)"] = bench.score(bench.truth.roll(1, dims=0))
    return scores, pictures


def _ksampler(model: Any, positive: Any, negative: Any, count: int, seed: int) -> Tensor:
    import comfy.sample

    latent = torch.zeros(count, 4, SIZE // 8, SIZE // 8)
    noise = comfy.sample.prepare_noise(latent, seed)
    sampled: Tensor = comfy.sample.sample(
        model, noise, STEPS, GUIDANCE, "euler", "normal", positive, negative, latent, disable_pbar=True, seed=seed
    )
    return sampled


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures the demo world and draws its sheets.")
    parser.add_argument("--hints", type=int, default=100)
    parser.add_argument("--runs", type=Path, help="the folder of the training's logs, to redraw its curves too")
    parser.add_argument("--docs", type=Path, default=DOCS)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    use_cpu_without_cuda()
    from ..control import Control
    from ..nodes.load import load_source

    bench = Bench(load_world(), options.hints)
    edges, colour = (
        Control.unbound(load_source(CONTROLS / f"control_composer_demo_{name}.safetensors", None, "auto")[0])
        for name in ("edges", "colour")
    )
    scores, pictures = measure(bench, edges, colour)
    options.docs.mkdir(parents=True, exist_ok=True)
    figures = {
        title: {"edge F1": round(score.f1, 3), "colour error": round(score.colour, 4)}
        for title, score in scores.items()
    }
    (options.docs / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    for title, score in scores.items():
        log.info("%-40s edge F1 %.3f  colour error %.4f", title, score.f1, score.colour)
    _draw_sheets(bench, pictures, options.docs)
    if options.runs is not None:
        _copy_training(options.runs, options.docs)


def _draw_sheets(bench: Bench, pictures: dict[str, Tensor], docs: Path) -> None:
    plain = pictures["no control"]
    save_sheet(docs / "plain.jpg", [("from captions alone, 20 steps, CFG 4", plain[:40])], across=8)
    shown = slice(0, 12)
    columns = [("scene", bench.truth[shown]), ("edges", bench.edges[shown]), ("colours", bench.colours[shown])]
    columns += [
        (title, pictures[title][shown]) for title in ("no control", "edge control", "colour control", "both controls")
    ]
    save_sheet(docs / "controls.jpg", columns)
    (docs / "captions.txt").write_text("\n".join(bench.captions[:40]) + "\n", encoding="utf-8")


def _copy_training(runs: Path, docs: Path) -> None:
    """The curves as one table per stage, and the watched pictures over the steps as one sheet per control."""
    from PIL import Image

    tables = {path.name: path for path in runs.glob("*.csv")}
    tables |= {f"{path.parent.name}.csv": path for path in runs.glob("control_*/losses.csv")}
    for name, path in tables.items():
        rows = list(csv.reader(path.open(newline="")))
        kept = rows[:: max(1, len(rows) // 60)] + rows[-1:]
        (docs / name).write_text("\n".join(",".join(row) for row in kept) + "\n", encoding="utf-8")
    for name in ("edges", "colour"):
        steps = sorted((runs / "steps").glob(f"{name}_*.png"))
        chosen = [steps[i] for i in sorted({round(k * (len(steps) - 1) / 7) for k in range(8)})] if steps else []
        if not chosen:
            continue
        strips = [Image.open(path) for path in chosen]
        page = Image.new("RGB", (strips[0].width, sum(strip.height for strip in strips)), "white")
        for line, strip in enumerate(strips):
            page.paste(strip, (0, line * strips[0].height))
        page.save(docs / f"training_{name}.jpg", quality=88)


if __name__ == "__main__":
    main()
