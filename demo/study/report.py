"""Writes docs/study.md and its pictures from the rows."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from ..scenes import MOST_SHAPES
from . import tables
from .charts import QUALITY, amounts_sheet, architecture_sheet, curves, guidance_sheet, over_pictures, over_steps
from .claims import Claim, Figures, claims
from .heldout import REAL, HeldOut
from .learn import PICTURES, settings_of
from .measure import Measuring
from .recogniser import FEATURES
from .rows import Cell
from .systems import Run

DOCS = Path(__file__).resolve().parents[2] / "docs"
INTERPRETATION = Path(__file__).with_name("interpretation.md")


def write_report(runs: Sequence[Run], measuring: Measuring, docs: Path = DOCS) -> list[Claim]:
    """`docs`/study.md, and in `docs`/study its sheets, curves and rows."""
    held_out, folder, rows = measuring.held_out, measuring.folder, measuring.rows
    figures = Figures(rows, held_out.count, measuring.guided)
    found = curves(runs, folder)
    judged = claims(figures, found)
    pictures = docs / "study"
    pictures.mkdir(parents=True, exist_ok=True)
    if rows.path.exists():
        shutil.copyfile(rows.path, pictures / rows.path.name)
    over_steps(found).save(pictures / "over_steps.png")
    over_pictures(figures).save(pictures / "over_pictures.png")
    shown = _sheets(folder, held_out, list(rows), pictures)
    text = _page(figures, measuring, runs, judged, shown)
    (docs / "study.md").write_text(text, encoding="utf-8")
    return judged


def _sheets(folder: Path, held_out: HeldOut, cells: Iterable[Cell], pictures: Path) -> dict[str, list[str]]:
    """The names of the sheets that could be drawn, by subject."""
    cells = [cell for cell in cells if cell.seed == 0 and cell.prompt]
    own = {cell.system: cell for cell in cells if not cell.way and cell.pictures == PICTURES[-1]}
    scenes = chosen(held_out)
    sheets: dict[str, dict[str, Image.Image]] = {"architectures": {}, "guidance": {}, "amounts": {}}
    if own:
        for scene in scenes:
            sheets["architectures"][f"scene_{scene + 1}"] = architecture_sheet(folder, held_out, scene, own)
    guided = [cell for cell in cells if cell.way]
    for prompt in dict.fromkeys(cell.prompt for cell in guided):
        sheets["guidance"][f"guidance_{prompt}"] = guidance_sheet(folder, held_out, guided[0], prompt, scenes)
    amounts = {
        cell.pictures: cell
        for cell in sorted(cells, key=lambda cell: cell.pictures)
        if cell.system == "ControlNet" and not cell.way
    }
    if len(amounts) > 1:
        sheets["amounts"]["amounts"] = amounts_sheet(folder, held_out, amounts, scenes)
    for drawn in sheets.values():
        for name, sheet in drawn.items():
            sheet.save(pictures / f"{name}.jpg", quality=QUALITY)
    return {subject: list(drawn) for subject, drawn in sheets.items()}


def chosen(held_out: HeldOut, among: int = 6) -> list[int]:
    """The first scene with one shape, with two, with three, of those whose pictures are kept."""
    counts = held_out.scenes.count[:among].tolist()
    return [counts.index(count) for count in range(1, MOST_SHAPES + 1) if count in counts]


def _page(
    figures: Figures, measuring: Measuring, runs: Sequence[Run], judged: Sequence[Claim], shown: dict[str, list[str]]
) -> str:
    settings = settings_of(runs[0])
    seeds = len({run.seed for run in runs})
    interpretation = INTERPRETATION.read_text(encoding="utf-8").strip() if INTERPRETATION.exists() else ""
    seen = settings.steps * settings.batch
    times = ", ".join(f"each of {_number(count)} about {seen / count:.2g} times" for count in PICTURES)
    parts = [
        "# The paper's study at the scale of the demo world",
        f"""Which findings of *Adding Conditional Control to Text-to-Image Diffusion Models* (arXiv 2302.05543) show in the [demo world](demo.md):
pictures of 128 × 128 pixels, a UNet of 3.4 million parameters, Canny edges as the condition, {settings.steps} steps of {settings.batch} pictures, {seeds} seeds.
A program writes this page from [its rows](study/measures.jsonl), verdicts included; only "What to make of it" is written by hand.""",
        "## What agrees",
        f"""Seeds share scenes and noise, so two systems are compared by the mean of their differences over the seeds, with its 95 % confidence
interval (Student's t) in brackets. *Agrees* and *disagrees* need an interval that leaves no doubt; *not decided* is within the spread of {seeds} seeds.
A system "obeys" where it goes at least half of the way from no control to the redrawn scenes, in every seed. "The same" is within 0.05 (FID: 5 %,
colour error: 0.01). The paper judged most of this by eye.""",
        tables.verdicts(judged),
        "## What to make of it",
        interpretation,
        "## Architectures and prompts",
        """- *ControlNet*: the pack's trainable copy.
- *Gaussian start*: the same with Gaussian in place of zero convolutions.
- *ControlNet-lite*: one convolution for each block in place of the copy.
- *concatenation*: the whole UNet trained on, with the hint as a fifth channel of its latent, as in SD2's depth-to-image.
- *no control*: the UNet as it is.

Prompts: *none* is empty; *insufficient* names the shapes alone; *conflicting* is the caption of a scene with as many other shapes on a ground of
another colour; *perfect* is the scene's own caption. Mean ± standard deviation over the seeds; [the measures](#measures) are explained below.""",
        *(
            tables.architectures(figures, measure)
            for measure in ("edge F1", "colour error", "caption", "shapes", "FID")
        ),
        "Whether the hint or the words win:",
        tables.conflict(figures),
        "![edge F1 over the steps, a band from the lowest seed to the highest](study/over_steps.png)",
        *_images(shown["architectures"], "one scene under four prompts, a row for each system"),
        "## Number of training pictures",
        f"ControlNets of {settings.steps} steps, whatever they learn from: {times}.",
        tables.amounts(figures),
        "![edge F1 over the number of training pictures](study/over_pictures.png)",
        *_images(shown["amounts"], "scenes by number of training pictures, without and with their prompts"),
        "## Guidance",
        f"""The ControlNets of {_number(PICTURES[-1])} pictures as files, read by the pack's loader, drawn by the host's sampler (euler, CFG 4), the first {figures.guided}
scenes. The first two rows have the hint in both branches, all others in the conditional one alone.""",
        tables.guidance(figures, "none"),
        tables.guidance(figures, "perfect"),
        "For comparison, of the same scenes:",
        tables.references(figures, guided=True),
        *_images(shown["guidance"], "the ways to guide"),
        "## One condition and two",
        "Edges by the study's ControlNets, colours by the demo's shipped control; in both branches, added up without weights.",
        tables.conditions(figures),
        "## Measures",
        f"""{figures.scenes} scenes that nothing was trained on. Where the host is not named, DDIM with {measuring.steps} steps at CFG 4 in {measuring.precision}, both branches under the hint.
Noise by seed, the same for all systems.

- *Edge F1*: the picture's Canny edges against the hint's, 2 pixels tolerance. *Colour error*: mean absolute difference of the means of 8 × 8 blocks, 0 to 1.
- *Caption*: of what the scene's own caption names (each shape with its colour; the ground with its kind and colour) the share that a recogniser sees
  in the picture. *Shapes*: of the kinds of shape that it names the share seen, in whatever colour. Sizes do not count.
- *Contrast*: standard deviation of a picture's values. Strong guidance drives it up.
- *FID*: Fréchet distance between these pictures and {_number(REAL)} real scenes in {FEATURES} features of the recogniser, its last layer averaged over the picture.
  So few pictures make it too large: the row of the scenes themselves says by how much. It compares with no other page's FID.

The recogniser is a small convolutional network that learned from rendered scenes. Its ceiling is what it sees in the scenes themselves, chance what it
sees of a caption in another scene:""",
        tables.references(figures),
        "## The paper's tables",
        "Their numbers are of other pictures, conditions and networks; only their order compares.",
        tables.published(),
        "## Reproduce it",
        """```
python host.py python -m control_composer.demo.study
```

It trains what is not trained, measures what is not measured and writes this page; it can be stopped at any moment and goes on where it was.""",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _images(names: Sequence[str], about: str) -> list[str]:
    return [f"![{about}](study/{name}.jpg)" for name in names]


def _number(value: int) -> str:
    return f"{value:,}".replace(",", " ")
