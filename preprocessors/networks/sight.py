"""How a published network was trained to see pictures, as the preprocessor_config.json beside its weights says it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import PreprocessorError
from ..sizing import Size

FILE = "preprocessor_config.json"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Sight:
    """The size that it sees a picture at: `square`, or the picture's aspect with its shorter side at `shorter` unless the longer one got
    longer than `longer`. 0 where a rule does not count; `longer` alone brings the longer side to it."""

    square: Size | None = None
    shorter: int = 0
    longer: int = 0
    divisor: int = 1
    """Both sides are enlarged to multiples of this."""
    statistics: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET
    """Mean and deviation of the colours, 0..1."""

    def size_of(self, size: Size) -> Size:
        """The size at which a picture of this size is seen, as transformers' processors round it; never less than one pixel."""
        height, width = self.square or self.kept_aspect(size)
        return Size(*(max(1, -(-side // self.divisor)) * self.divisor for side in (height, width)))

    def kept_aspect(self, size: Size) -> Size:
        if not self.shorter:
            scale = self.longer / max(size)
            return Size(int(size.height * scale + 0.5), int(size.width * scale + 0.5))
        short, long = min(size), max(size)
        shorter: float = self.shorter
        if self.longer and long / short * shorter > self.longer:
            shorter = self.longer * short / long
        sides = (round(shorter), int(shorter * long / short))
        return Size(*sides) if size.height <= size.width else Size(*reversed(sides))


def read_sight(folder: Path, divisor: int = 1) -> Sight:
    """What a folder says. `divisor`: what counts where the file names none. Raises PreprocessorError for what it does not say."""
    where, wanted = f"'{folder.name}/{FILE}'", "the settings of transformers' image processor"
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return sight_of(found, divisor)
    except OSError:
        reason = "no such file"
    except (ValueError, TypeError, KeyError, AttributeError):
        reason = "no settings that tell the size, mean and deviation of pictures"
    raise PreprocessorError(f"{where}: found {reason}, but {wanted} were expected; put the published file there.")


def sight_of(found: dict[str, Any], divisor: int) -> Sight:
    size, longest = found["size"], found.get("max_size")
    if isinstance(size, int):
        # As files before 2023 have it.
        size = {"shortest_edge": size, "longest_edge": longest} if longest else {"height": size, "width": size}
    mean, deviation = (
        found.get(name, usual) for name, usual in zip(("image_mean", "image_std"), IMAGENET, strict=True)
    )
    statistics = (tuple(map(float, mean)), tuple(map(float, deviation)))
    if "height" in size:
        sight = Sight(square=Size(int(size["height"]), int(size["width"])))
    else:
        sight = Sight(shorter=int(size.get("shortest_edge", 0)), longer=int(size.get("longest_edge") or longest or 0))
    sides = sight.square or (sight.shorter or sight.longer,)
    if [len(one) for one in statistics] != [3, 3] or min(sides) < 1 or min(statistics[1]) <= 0:
        raise ValueError
    return Sight(
        sight.square,
        sight.shorter,
        sight.longer,
        int(found.get("size_divisor", divisor)) if divisor > 1 else 1,
        statistics,
    )
