"""A set of examples as rows of one size each: what a training learns from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...preprocessors.sizing import Size
from ..errors import TrainingError
from .buckets import bucket_sizes, nearest
from .cut import Cut, cuts
from .errors import DatasetError
from .example import Example, Found, Problem, Source, fingerprint
from .hints import Annotate, Condition, Hints
from .pictures import UnreadableError, check_picture, read_picture
from .report import report
from .settings import DatasetSettings
from .sheet import Cell, contact_sheet, some_of_each

ANOTHER_SHAPE = 1 / 16
"""By how much hint and picture may differ in shape: bringing 512 pixels to a multiple of 64, as annotators do, changes it by up to 32 / 512."""


@dataclass(frozen=True, eq=False)
class Row:
    picture: Tensor
    """(H, W, 3) uint8; H and W are multiples of 64."""
    caption: str
    hint: Tensor
    """(H, W, 3) uint8."""


class ConditionDataset:
    """Pictures, captions and hints, cut to the sizes of buckets. Hints that a preprocessor makes are made when a row is read first."""

    examples: tuple[Example, ...]
    problems: tuple[Problem, ...]
    """What is left out, and why."""
    settings: DatasetSettings
    condition: str
    """The id of the preprocessor that makes the hints; "" where they came with the pictures."""
    parameters: Mapping[str, Any]
    """The preprocessor's."""
    annotate: Annotate | None
    sizes: tuple[Size, ...]
    """By the number of the bucket."""
    groups: Tensor
    """(rows,) int64: the bucket of each row."""
    fingerprint: str
    """SHA-256, in hexadecimal digits, of what decides the rows: names, sizes and times of files, captions, settings, the preprocessor with its own."""

    def __init__(
        self,
        found: Found,
        settings: DatasetSettings | None = None,
        condition: Condition | None = None,
        hints: Path | None = None,
        on_example: Callable[[int], None] | None = None,
    ) -> None:
        """`condition` makes the hints, kept in the folder `hints` where one is given; without it they are the examples' own.

        `on_example` is called with the number of examples looked at, before each. Raises TrainingError where none can be used.
        """
        self.settings = settings = settings or DatasetSettings()
        self.condition = "" if condition is None else condition.id
        self.parameters = {} if condition is None else dict(condition.parameters)
        self.annotate = None if condition is None else condition.annotate
        self._condition_key = "" if condition is None else condition.key
        self._hints = None if condition is None else Hints(condition, hints)
        self._check_flip()
        problems = list(found.problems)
        good: list[tuple[Example, Size]] = []
        for number, example in enumerate(found.examples):
            if on_example is not None:
                on_example(number)
            looked = self._looked_at(example)
            if isinstance(looked, Size):
                good.append((example, looked))
            else:
                problems.append(Problem(example.name, looked))
        self.problems = tuple(problems)
        if not good:
            raise _nothing(self.problems)
        self.examples = tuple(example for example, _ in good)
        self._sizes = tuple(size for _, size in good)
        self._cuts = tuple(self._cut_all())
        self.sizes = tuple(sorted({cut.size for _, cut in self._cuts}, key=lambda size: size.width / size.height))
        self.groups = torch.tensor([self.sizes.index(cut.size) for _, cut in self._cuts], dtype=torch.int64)
        self.fingerprint = self._fingerprint()
        self._last: tuple[int, Image.Image] | None = None

    def __len__(self) -> int:
        """Rows: examples × crops × flips, less the crops that would have shown the same."""
        return len(self._cuts)

    def row(self, index: int) -> Row:
        """Row number `index`, from 0. Raises DatasetError for one whose file turns out broken, TrainingError for a hint that cannot be kept."""
        number, cut = self._cuts[index]
        example = self.examples[number]
        shown = cut.of_picture(self._picture(number))
        if self._hints is not None:
            hint = self._hints.of(shown)
        else:
            assert example.hint is not None  # those without are problems
            hint = np.asarray(self._read(example.name, "hint", example.hint))
            hint = cut.of_hint(hint, self._sizes[number], self.settings.hint_kind)
        return Row(torch.from_numpy(shown), example.caption, torch.from_numpy(hint))

    def contact_sheet(self, count: int = 12) -> Tensor:
        """(1, H, W, 3) float 0..1: pictures and hints of `count` rows, of as many pictures as there are, with their captions."""
        rows: list[list[int]] = [[] for _ in self.examples]
        for index, (number, _) in enumerate(self._cuts):
            rows[number].append(index)
        return contact_sheet([self._cell(index) for index in some_of_each(rows, count, self.settings.seed)])

    def report(self) -> str:
        """What there is, what was left out and what is worth a look."""
        return report(self)

    @property
    def cuts(self) -> tuple[tuple[int, Cut], ...]:
        """Of each row, the number of its example and the part it shows."""
        return self._cuts

    def _cell(self, index: int) -> Cell:
        number, cut = self._cuts[index]
        title = f"{cut.size.width} x {cut.size.height}{', mirrored' if cut.flip else ''}: {self.examples[number].name}"
        try:
            row = self.row(index)
        except DatasetError as error:
            return Cell(title, None, None, str(error))
        return Cell(title, row.picture.numpy(), row.hint.numpy(), row.caption or "(no caption)")

    def _looked_at(self, example: Example) -> Size | str:
        """The picture's size, or what is wrong with the example."""
        if not example.caption.strip() and not self.settings.empty_captions:
            return "has no caption; write one, or allow empty captions"
        whole = self.settings.read_all
        try:
            size = check_picture(example.picture, whole)
        except UnreadableError as error:
            return f"the picture {error}"
        if self._hints is not None:
            return size
        if example.hint is None:
            return "has no hint; give it one, or choose a preprocessor"
        try:
            hint = check_picture(example.hint, whole)
        except UnreadableError as error:
            return f"the hint {error}"
        if abs(hint.width * size.height / (hint.height * size.width) - 1) > ANOTHER_SHAPE:
            return f"the hint has {hint.width} x {hint.height} pixels, another shape than the picture's {size.width} x {size.height}"
        return size

    def _cut_all(self) -> Iterator[tuple[int, Cut]]:
        sizes = bucket_sizes(self.settings.resolution, self.settings.widest)
        for number, (example, size) in enumerate(zip(self.examples, self._sizes, strict=True)):
            for cut in cuts(size, nearest(size, sizes), example.name, self.settings):
                yield number, cut

    def _picture(self, number: int) -> Image.Image:
        # The cuts of one picture come one after the other.
        if self._last is None or self._last[0] != number:
            example = self.examples[number]
            self._last = (number, self._read(example.name, "picture", example.picture, self._sizes[number]))
        return self._last[1]

    def _read(self, name: str, what: str, source: Source, size: Size | None = None) -> Image.Image:
        try:
            image = read_picture(source)
            if size is not None and (image.height, image.width) != tuple(size):
                raise UnreadableError("has another size than when the set was made")
            return image
        except UnreadableError as error:
            raise DatasetError(
                f"The {what} of '{name}'",
                found=str(error),
                expected="a whole picture was expected",
                remedy="replace the file or take it out of the set, and make the set again",
            ) from error

    def _check_flip(self) -> None:
        kind = self.settings.hint_kind
        if self.settings.flip and self.condition == "" and kind in ("pose", "text"):
            why = (
                "a right arm would become a left one of the wrong colour"
                if kind == "pose"
                else "letters cannot be read mirrored"
            )
            raise TrainingError(
                "The setting 'flip'",
                found=f"is on for hints that show {'poses' if kind == 'pose' else 'text'}",
                expected=f"hints that stay true when mirrored were expected ({why})",
                remedy="turn it off, or let a preprocessor make the hints",
            )

    def _fingerprint(self) -> str:
        told = json.dumps([1, asdict(self.settings), self._condition_key], sort_keys=True)
        own_hints = self._hints is None
        return hashlib.sha256(f"{told} {fingerprint(self.examples, own_hints)}".encode()).hexdigest()


def _nothing(problems: tuple[Problem, ...]) -> TrainingError:
    shown = "; ".join(f"'{problem.name}' {problem.what}" for problem in problems[:3])
    more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
    return TrainingError(
        "The set of pictures",
        found=f"has none that can be used: {shown}{more}" if problems else "is empty",
        expected="at least one picture with caption and hint was expected",
        remedy="mend or add files",
    )
