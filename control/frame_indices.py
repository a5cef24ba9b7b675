"""Frame indices: which frames of a video have a picture."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import ControlError

SPREAD = "spread"
# A number or a range of them; negative ones count from the end.
ITEM = re.compile(r"(-?\d{1,6})(?:\s*-\s*(-?\d{1,6}))?")
NODE = "Sparse Frames"


@dataclass(frozen=True)
class FrameIndices:
    """Ranges of frames, first and last included; none for pictures that are spread evenly over the batch, the first on its first frame."""

    text: str = SPREAD
    ranges: tuple[tuple[int, int], ...] = ()

    @classmethod
    def parse(cls, text: str) -> FrameIndices:
        """Of "0, 8, -1", "0-3" or "spread". Raises ControlError."""
        if text.strip().lower() == SPREAD:
            return cls()
        ranges = []
        for item in re.split(r"[,;\n]|(?<=\d)\s+(?=-?\d)", text.strip()):
            found = ITEM.fullmatch(item.strip())
            if found is None:
                raise ControlError(
                    f'frames of {NODE} has "{item.strip()}" in it, but numbers and ranges such as 0, 8, -1 or 0-3, or the word {SPREAD}, were '
                    "expected; correct it."
                )
            ranges.append((int(found[1]), int(found[2] or found[1])))
        return cls(text.strip(), tuple(ranges))

    def frames(self, pictures: int, total: int, name: str) -> tuple[int, ...]:
        """The frame of each picture in a batch of `total`; `name` names the control in messages. Raises ControlError."""
        if not self.ranges:
            return self._spread(pictures, total, name)
        frames = [frame for first, last in self.ranges for frame in self._range(first, last, total, name)]
        twice = next((frame for frame in frames if frames.count(frame) > 1), None)
        if twice is not None:
            raise ControlError(
                f'The frames "{self.text}" of {name} name frame {twice} of {total} twice, but each frame can have one picture; name it once.'
            )
        self._check_count(pictures, len(frames), name)
        return tuple(frames)

    def check(self, pictures: int, name: str) -> None:
        """Raises ControlError where no batch, however long, has a frame for each picture."""
        if self.ranges and all((first < 0) == (last < 0) for first, last in self.ranges):
            self._check_count(pictures, sum(abs(last - first) + 1 for first, last in self.ranges), name)

    def _check_count(self, pictures: int, frames: int, name: str) -> None:
        if frames != pictures:
            raise ControlError(
                f'The image of {name} has {count_of(pictures, "picture")}, but its frames "{self.text}" are {frames} and one picture for each was '
                f"expected; give {count_of(frames, 'picture')}, or name {count_of(pictures, 'frame')} in {NODE}."
            )

    def _spread(self, pictures: int, total: int, name: str) -> tuple[int, ...]:
        """AnimateDiff's examples: 0, 5, 10, 15 for four pictures in 16 frames, 0, 8, 15 for three."""
        if pictures > total:
            raise ControlError(
                f"The image of {name} has {count_of(pictures, 'picture')}, but the batch has {count_of(total, 'frame')} and at most one picture for "
                f"each was expected; give fewer pictures, or make the latent batch {pictures} long."
            )
        gaps = max(1, pictures - 1)
        return tuple((2 * picture * (total - 1) + gaps) // (2 * gaps) for picture in range(pictures))

    def _range(self, first: int, last: int, total: int, name: str) -> range:
        ends = []
        for number in (first, last):
            if not -total <= number < total:
                raise ControlError(
                    f'The frames "{self.text}" of {name} name frame {number}, but the batch has {count_of(total, "frame")}, counted from 0 to '
                    f"{total - 1} or back from -1; correct the number, or make the latent batch longer."
                )
            ends.append(number % total)
        step = 1 if ends[0] <= ends[1] else -1
        return range(ends[0], ends[1] + step, step)


def count_of(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
