"""Pictures of fixed hints while a control learns, and how well they obey."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..evaluation.fidelity import MEASURES, fidelity
from ..preprocessors.careful_resize import resized
from ..preprocessors.sizing import Size
from .batch import Batch, Data
from .objective import Schedule
from .sampling import sample
from .whole import write_whole

FOLDER, TABLE = "validation", "validation.csv"
HEAD = ("step", "pictures", "measure", "score")
Decode = Callable[[Tensor], Tensor]
"""Latents as the UNet sees them (B, 4, h, w) -> pictures (B, 8h, 8w, 3) float 0..1."""
Annotate = Callable[[Tensor], Tensor]
"""(1, H, W, 3) float 0..1 -> its hint (1, H, W, 3)."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """One validation."""

    step: int
    hints: Tensor
    """(B, H, W, 3) float 0..1."""
    pictures: Tensor
    """(B, H, W, 3) float 0..1; where sizes differ, the smaller ones have white beside and below."""
    score: float | None
    """Mean over the pictures that could be measured; None without a measure."""
    measure: str
    """Its name; empty without one."""


@dataclass(frozen=True)
class Row:
    """One validation in the table."""

    step: int
    pictures: int
    measure: str
    score: float | None
    scores: tuple[float, ...] = ()
    """Of each picture; NaN where nothing could be compared."""

    @classmethod
    def of(cls, cells: Sequence[str]) -> Row:
        score = float(cells[3]) if cells[3] else None
        return cls(int(cells[0]), int(cells[1]), cells[2], score, tuple(map(float, cells[4:])))

    def cells(self) -> list[str]:
        score = "" if self.score is None else f"{self.score:.6g}"
        return [str(self.step), str(self.pictures), self.measure, score, *(f"{one:.6g}" for one in self.scores)]


@dataclass
class Validation:
    """Draws `rows` of the data with the same noise each time, and writes the scores and the pictures into `folder`.

    `condition` is the id of the preprocessor that made the hints, `annotate` makes them again of what was drawn; with a measure for it there
    is a score. `should_stop` is asked between pictures.
    """

    data: Data
    rows: Sequence[int]
    unet: Any
    schedule: Schedule
    decode: Decode
    folder: Path
    condition: str = ""
    annotate: Annotate | None = None
    seed: int = 0
    steps: int = 20
    guidance: float = 4.0
    should_stop: Callable[[], bool] = field(default=lambda: False)

    @property
    def measured(self) -> bool:
        """Whether there is a measure. Poses have one of data, which a drawn hint does not tell."""
        measure = MEASURES.get(self.condition)
        return self.annotate is not None and measure is not None and measure.numbers is not None

    @property
    def higher_is_better(self) -> bool:
        return not self.measured or MEASURES[self.condition].higher_is_better

    @torch.no_grad()
    def __call__(self, step: int, control: nn.Module | None) -> Drawn | None:
        """None where it was stopped; nothing is written then. Raises TrainingError where the disk refuses."""
        pictures: list[Tensor] = []
        hints: list[Tensor] = []
        scores: list[float] = []
        for number, row in enumerate(self.rows):
            if self.should_stop():
                return None
            batch = self.data.batch(torch.tensor([row]))
            hint = batch.hint.float() / 255 if batch.hint.dtype == torch.uint8 else batch.hint.float()
            picture = self._draw(control, batch, hint, number)
            shown = hint.permute(0, 2, 3, 1).cpu()
            if self.measured:
                scores.append(self._score(shown, picture))
            pictures.append(picture)
            hints.append(_three(shown))
        known = [score for score in scores if math.isfinite(score)]
        drawn = Drawn(
            step,
            _together(hints),
            _together(pictures),
            sum(known) / len(known) if known else None,
            MEASURES[self.condition].name if self.measured else "",
        )
        self._keep(drawn, scores)
        return drawn

    def _draw(self, control: nn.Module | None, batch: Batch, hint: Tensor, number: int) -> Tensor:
        device = next(self.unet.parameters()).device
        generator = torch.Generator().manual_seed(self.seed + number)
        noise = torch.randn(batch.latent.shape, generator=generator)
        empty = self.data.empty
        latents = sample(
            self.unet,
            control,
            self.schedule,
            noise.to(device),
            hint.to(device),
            batch.context.to(device),
            type(empty)(empty.context.to(device), None if empty.pooled is None else empty.pooled.to(device)),
            None if batch.y is None else batch.y.to(device),
            steps=self.steps,
            guidance=self.guidance,
        )
        return self.decode(latents).float().cpu().clamp(0, 1)

    def _score(self, hint: Tensor, picture: Tensor) -> float:
        assert self.annotate is not None
        # As the hints of the data were made: of 8 bits, kept in 8 bits.
        with torch.inference_mode():
            again = self.annotate(_in_8_bits(picture))[0].float().cpu().numpy()
        again = resized(again, Size(*hint.shape[1:3]))
        return float(fidelity(self.condition, _three(hint), _three(_in_8_bits(torch.tensor(again)[None]))).score)

    def _keep(self, drawn: Drawn, scores: Sequence[float]) -> None:
        row = Row(drawn.step, len(drawn.pictures), drawn.measure, drawn.score, tuple(scores))
        # Rows from here on come of a run that was cut off later.
        rows = [*(old for old in read_rows(self.folder) if old.step < drawn.step), row]
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow([*HEAD, *(f"picture {number + 1}" for number in range(len(scores)))])
        writer.writerows(one.cells() for one in rows)
        path = picture_path(self.folder, drawn.step)
        strip = Image.fromarray((strip_of(drawn) * 255).round().byte().numpy())
        write_whole(path, lambda beside: strip.save(beside, format="PNG"), "The validation's pictures")
        write_whole(
            self.folder / TABLE,
            lambda beside: beside.write_text(text.getvalue(), encoding="utf-8", newline=""),
            "The validation's table",
        )


def strip_of(drawn: Drawn) -> Tensor:
    """(2H, B * W, 3): hints, and the pictures below them."""
    rows = [torch.cat(list(batch), dim=1) for batch in (drawn.hints, drawn.pictures)]
    return torch.cat(rows, dim=0)


def latest(folder: Path) -> Drawn | None:
    """The last validation as it lies in `folder`; None where there is none."""
    rows = read_rows(folder)
    if not rows:
        return None
    row = rows[-1]
    try:
        with Image.open(picture_path(folder, row.step)) as image:
            strip = torch.from_numpy(np.array(image.convert("RGB"))).float() / 255
        hints, pictures = strip.reshape(2, strip.shape[0] // 2, row.pictures, -1, 3).permute(0, 2, 1, 3, 4)
    except (OSError, RuntimeError):
        return None
    return Drawn(row.step, hints, pictures, row.score, row.measure)


def picture_path(folder: Path, step: int) -> Path:
    """Of the validation after so many steps: hints above, pictures below."""
    return folder / FOLDER / f"step_{step:07d}.png"


def read_scores(folder: Path) -> tuple[list[int], list[float]]:
    """Steps and their scores, as far as there is a measure."""
    found = [(row.step, row.score) for row in read_rows(folder) if row.score is not None]
    return [step for step, _ in found], [score for _, score in found]


def read_rows(folder: Path) -> list[Row]:
    """The table in `folder`; empty where there is none."""
    try:
        with (folder / TABLE).open(newline="", encoding="utf-8") as file:
            return [Row.of(cells) for cells in csv.reader(file) if cells and cells[0].isdigit()]
    except FileNotFoundError:
        return []


def spread(length: int, count: int) -> list[int]:
    """`count` row numbers of `length`, at equal distances; all of them where there are no more."""
    count = min(count, length)
    return [(2 * number + 1) * length // (2 * count) for number in range(count)]


def decoder(vae: Any, model: Any) -> Decode:
    """Through the host's VAE; `model` is the BaseModel, which knows the latents' scale."""

    # The host's networks may be tensors of inference.
    @torch.inference_mode()
    def decoded(latents: Tensor) -> Tensor:
        pictures: Tensor = vae.decode(model.process_latent_out(latents))
        return pictures

    return lambda latents: decoded(latents).clone()


def _three(hint: Tensor) -> Tensor:
    """(B, H, W, 3) of any number of channels: gray three times; of others the first three, black where there are fewer."""
    if hint.shape[3] == 1:
        return hint.expand(-1, -1, -1, 3)
    return torch.nn.functional.pad(hint[..., :3], (0, max(0, 3 - hint.shape[3])))


def _in_8_bits(picture: Tensor) -> Tensor:
    return (picture.clamp(0, 1) * 255).round() / 255


def _together(pictures: Sequence[Tensor]) -> Tensor:
    height, width = (max(picture.shape[side] for picture in pictures) for side in (1, 2))
    return torch.cat(list(_framed(pictures, height, width)))


def _framed(pictures: Sequence[Tensor], height: int, width: int) -> Iterator[Tensor]:
    for picture in pictures:
        yield torch.nn.functional.pad(
            picture, (0, 0, 0, width - picture.shape[2], 0, height - picture.shape[1]), value=1.0
        )
