"""The study's curves and sheets, as pictures for the documentation."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from PIL import Image
from torch import Tensor

from ...training.chart import Line, chart
from ..panels import Row, page
from .claims import Curves, Figures, Missing
from .guiding import CONDITIONS, WAYS
from .heldout import HeldOut
from .learn import PICTURES
from .measure import kept
from .prompts import SETTINGS
from .rows import Cell
from .systems import SYSTEMS, Run

QUALITY = 82


def curves(runs: Sequence[Run], folder: Path) -> Curves:
    """What the runs with all pictures scored on the watched scenes while they trained."""
    found: dict[str, dict[int, tuple[list[int], list[float]]]] = {}
    for run in runs:
        path = folder / run.name / "watch.csv"
        if run.pictures == PICTURES[-1] and path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                rows = [(int(row[0]), float(row[1])) for row in csv.reader(file)]
            found.setdefault(run.system, {})[run.seed] = ([step for step, _ in rows], [f1 for _, f1 in rows])
    return found


def over_steps(found: Curves) -> Image.Image:
    """Mean over the seeds, with the lowest and the highest as a band."""
    lines = []
    for system in (system for system in SYSTEMS if system in found):
        by_seed = [dict(zip(steps, scores, strict=True)) for steps, scores in found[system].values()]
        steps = sorted(set(by_seed[0]).intersection(*by_seed))
        lines.append(_line(system, steps, [[one[step] for one in by_seed] for step in steps]))
    return chart(
        lines,
        title="Edge F1 on sixteen watched scenes while training",
        x_name="steps",
        y_name="edge F1",
        size=(720, 420),
    )


def over_pictures(figures: Figures) -> Image.Image:
    lines = []
    for prompt, name in (("perfect", "perfect prompts"), ("none", "no prompts")):
        values = {}
        for count in PICTURES:
            try:
                values[count] = list(figures.of("edge F1", "ControlNet", prompt, count).values())
            except Missing:
                continue
        lines.append(_line(name, list(values), list(values.values())))
    return chart(
        lines,
        title="Edge F1 over the number of training pictures",
        x_name="pictures",
        y_name="edge F1",
        size=(560, 360),
        log_x=True,
    )


def architecture_sheet(folder: Path, held_out: HeldOut, scene: int, cells: Mapping[str, Cell]) -> Image.Image:
    """One scene: a row for each system, a column for each setting. `cells` has each system's, of any setting."""
    said = "\n".join(f"{setting}: {held_out.prompts[setting][scene] or '(nothing)'}" for setting in SETTINGS)
    rows = [Row("Scene, hint and prompts", [("scene", held_out.truth[scene]), (said, held_out.edges[scene])])]
    for system in SYSTEMS:
        shown = [
            (setting, picture)
            for setting in SETTINGS
            if system in cells and (picture := _picture(folder, cells[system], setting, "", scene)) is not None
        ]
        if shown:
            rows.append(Row(system, shown))
    return page(rows)


def guidance_sheet(folder: Path, held_out: HeldOut, cell: Cell, prompt: str, scenes: Sequence[int]) -> Image.Image:
    """A row for each scene, a column for each way to guide."""
    rows = []
    for scene in scenes:
        shown = [("hint", held_out.edges[scene])]
        for way in (*WAYS, *CONDITIONS):
            picture = _picture(folder, cell, prompt, way, scene)
            if picture is not None:
                shown.append((way, picture))
        rows.append(Row(held_out.prompts[prompt][scene] or "No prompt", shown))  # type: ignore[index]
    return page(rows)


def amounts_sheet(folder: Path, held_out: HeldOut, cells: Mapping[int, Cell], scenes: Sequence[int]) -> Image.Image:
    """A row for each number of training pictures, a column for each scene, without and with its prompt."""
    rows = [Row("hints", [("", held_out.edges[scene]) for scene in scenes for _ in ("none", "perfect")])]
    for count, cell in cells.items():
        shown = [
            (setting, picture)
            for scene in scenes
            for setting in ("none", "perfect")
            if (picture := _picture(folder, cell, setting, "", scene)) is not None
        ]
        if shown:
            rows.append(Row(f"{count} training pictures", shown))
    return page(rows)


def _picture(folder: Path, cell: Cell, prompt: str, way: str, scene: int) -> Tensor | None:
    own = Cell(cell.system, prompt, cell.seed, cell.pictures, way, cell.scenes, cell.steps)
    path = folder / "pictures" / f"{own.key}.png"
    if not path.exists():
        return None
    pictures = kept(path)
    return pictures[scene] if scene < len(pictures) else None


def _line(name: str, x: Sequence[float], values: Sequence[Sequence[float]]) -> Line:
    band = ([min(each) for each in values], [max(each) for each in values])
    return Line(name, x, [fmean(each) for each in values], band)
