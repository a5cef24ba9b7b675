"""How a set of examples becomes rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import TrainingError

HintKind = Literal["picture", "normals", "pose", "text"]
STEP = 64
"""Sides are multiples of this many pixels: the UNet of SD halves a latent of 1/8 of them three times."""


@dataclass(frozen=True)
class DatasetSettings:
    """Raises TrainingError for what cannot be."""

    resolution: int = 512
    """Pixels of a square's side; other shapes have at most as many pixels in all."""
    widest: float = 2.0
    """The longer side over the shorter one, at most; what is wider is cropped. 1 makes all squares."""
    crops: int = 1
    """Cuts of each picture: the one in the centre, and others at random."""
    flip: bool = False
    """Whether each cut comes mirrored too."""
    seed: int = 0
    hint_kind: HintKind = "picture"
    """What hints that come with the pictures show; it decides how they are mirrored."""
    empty_captions: bool = False
    """Whether pictures without words are used."""
    read_all: bool = True
    """Whether each file is read to its end when the set is made, so that a broken one is known at once."""

    def __post_init__(self) -> None:
        self._check(
            "resolution",
            f"a multiple of {STEP} from {STEP} to 8192",
            self.resolution % STEP == 0 and STEP <= self.resolution <= 8192,
        )
        self._check("widest", "a number from 1 to 8", 1 <= self.widest <= 8)
        self._check("crops", "a whole number from 1 to 1000", 1 <= self.crops <= 1000)
        self._check("seed", "a whole number from 0 to below 2^63", 0 <= self.seed < 2**63)
        self._check("hint_kind", " or ".join(get_args(HintKind)), self.hint_kind in get_args(HintKind))

    def _check(self, name: str, expected: str, holds: bool) -> None:
        if not holds:
            raise TrainingError(
                f"The setting '{name}'",
                found=f"is {getattr(self, name)!r}",
                expected=f"{expected} was expected",
                remedy="change it",
            )
