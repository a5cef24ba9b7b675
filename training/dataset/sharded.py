"""The condition maker for sets beyond one machine: many processes turn examples into shards, each its own, and go on where they stopped."""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...preprocessors import PreprocessorError
from ...preprocessors.pixels import to_uint8
from ..checkpoint import remove
from ..errors import TrainingError
from .dataset import ANOTHER_SHAPE
from .example import Example, Found, Problem, Source
from .hints import Condition
from .pictures import UnreadableError, check_picture, read_picture
from .shards import SET, VERSION, Member, Sample, is_whole, shard_path, told_by, write_shard, write_text

PROBLEMS = "problems.jsonl"
HOPELESS = 100
"""A whole shard of so many examples without one that is good is no matter of pictures, but of the disk or the settings."""


@dataclass(frozen=True)
class ShardSettings:
    """Raises TrainingError for what cannot be."""

    rows: int = 1000
    """Examples of one shard: what a process that is killed loses at most."""
    resolution: int = 0
    """Pixels of the shorter side of hints that a preprocessor makes; 0 for the picture's own size."""
    empty_captions: bool = False
    """Whether pictures without words are taken."""

    def __post_init__(self) -> None:
        for name, least, most in (("rows", 1, 10**6), ("resolution", 0, 2**14)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                raise TrainingError(
                    f"The setting '{name}'",
                    found=f"is {value!r}",
                    expected=f"a whole number from {least} to {most} was expected",
                    remedy="change it",
                )


class Shard(NamedTuple):
    """One shard that a process has made."""

    number: int
    rows: int
    problems: int
    seconds: float


class StoppedError(Exception):
    """Asked to stop inside of a shard."""


class ShardMaker:
    """Makes the shards of one set. Which example lies in which shard does not depend on the number of processes."""

    def __init__(
        self, found: Found, folder: Path, condition: Condition | None, settings: ShardSettings | None = None
    ) -> None:
        """`condition` makes hints of (1, H, W, 3) float 0..1; without it they are the examples' own.

        Raises TrainingError for a set without examples, a folder of another set, or a condition that fails with every picture.
        """
        self.settings = settings or ShardSettings()
        self.found = found
        self.folder = folder
        self.condition = condition
        self.count = -(-len(found.examples) // self.settings.rows)
        """Shards in all."""
        if not found.examples:
            raise TrainingError(
                "The set of pictures",
                found=f"has none that can be used (first of {len(found.problems)} problems: {_words(found.problems[:1])})"
                if found.problems
                else "is empty",
                expected="at least one picture was expected",
                remedy="mend or add files",
            )
        self.fingerprint = self._fingerprint()
        self._claim()

    def missing(self, share: tuple[int, int] = (0, 1)) -> list[int]:
        """The numbers of the shards that are still to be made by process `share[0]` of `share[1]`."""
        index, count = share
        return [n for n in range(index, self.count, count) if not is_whole(shard_path(self.folder, n))]

    def make(
        self,
        share: tuple[int, int] = (0, 1),
        on_shard: Callable[[Shard], None] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Makes the missing shards of a process; whether that was all. Raises TrainingError where the disk refuses.

        The process that finishes last writes the list of all problems.
        """
        for number in self.missing(share):
            start = time.monotonic()
            try:
                rows, problems = write_shard(
                    shard_path(self.folder, number), self._samples(number, should_stop), self.fingerprint
                )
            except StoppedError:
                return False
            if on_shard is not None:
                on_shard(Shard(number, rows, problems, time.monotonic() - start))
        if not self.missing():
            self._list_problems()
        return True

    def _samples(self, number: int, should_stop: Callable[[], bool]) -> Iterator[Sample | Problem]:
        first = number * self.settings.rows
        examples = self.found.examples[first : first + self.settings.rows]
        problems: list[Problem] = []
        for place, example in enumerate(examples, start=first):
            if should_stop():
                raise StoppedError
            try:
                yield self._sample(example, f"{place:09d}")
            except UnreadableError as error:
                problem = Problem(example.name, str(error))
                problems.append(problem)
                yield problem
        if len(problems) == len(examples) >= HOPELESS:
            raise TrainingError(
                f"Shard {number}",
                found=f"would hold none of its {len(examples)} pictures (the first: {_words(problems[:1])})",
                expected="some that can be used were expected",
                remedy="look whether the disk is there and the settings are right, and start again",
            )

    def _sample(self, example: Example, key: str) -> Sample:
        """Raises UnreadableError, in words that follow the example's name."""
        if not example.caption.strip() and not self.settings.empty_captions:
            raise UnreadableError("has no caption; write one, or allow empty captions")
        try:
            image = read_picture(example.picture)
            picture = _file(example.picture)
        except (UnreadableError, OSError) as error:
            raise UnreadableError(f"the picture {error}") from error
        facts: dict[str, Any] = {"width": image.width, "height": image.height}
        if self.condition is not None:
            facts |= {"condition": self.condition.id, "parameters": dict(self.condition.parameters)}
            return Sample(example.name, key, picture, example.caption, (".png", self._hint(image)), facts)
        if example.hint is None:
            raise UnreadableError("has no hint; give it one, or choose a condition")
        try:
            hint_size = check_picture(example.hint, whole=True)
            hint = _file(example.hint)
        except (UnreadableError, OSError) as error:
            raise UnreadableError(f"the hint {error}") from error
        if abs(hint_size.width * image.height / (hint_size.height * image.width) - 1) > ANOTHER_SHAPE:
            raise UnreadableError(
                f"the hint has {hint_size.width} x {hint_size.height} pixels, another shape than the picture's {image.width} x {image.height}"
            )
        return Sample(example.name, key, picture, example.caption, hint, facts)

    def _hint(self, image: Image.Image) -> bytes:
        """A PNG file; gray where all channels are the same, which is a third of the work."""
        assert self.condition is not None
        pixels = torch.from_numpy(np.array(image))[None].float() / 255
        try:
            hint = np.atleast_3d(to_uint8(self.condition.annotate(pixels)[0]))
        except (MemoryError, torch.OutOfMemoryError):
            raise
        # Whatever a network or OpenCV says of a picture that it was not made for, such as one of a single row.
        except (PreprocessorError, ValueError, RuntimeError, _opencv_error()) as error:
            raise UnreadableError(f"gave no hint ({' '.join(str(error).split())})") from error
        gray = bool((hint == hint[..., :1]).all())
        content = io.BytesIO()
        Image.fromarray(hint[..., 0] if gray else hint).save(content, "PNG")
        return content.getvalue()

    def _fingerprint(self) -> str:
        """SHA-256 of what decides the shards: names, captions, sizes and times of files, settings, the condition with its own."""
        key = "" if self.condition is None else self.condition.key
        told = hashlib.sha256(json.dumps([VERSION, asdict(self.settings), key], sort_keys=True).encode())
        for example in self.found.examples:
            hint = None if self.condition is not None or example.hint is None else _stamp(example.hint)
            told.update(json.dumps([example.name, example.caption, _stamp(example.picture), hint]).encode())
        return told.hexdigest()

    def _claim(self) -> None:
        """Makes the folder that of this set. Raises TrainingError where it is another's."""
        path = self.folder / SET
        condition = None if self.condition is None else self.condition
        told = {
            "version": VERSION,
            "fingerprint": self.fingerprint,
            "condition": "" if condition is None else condition.id,
            "parameters": {} if condition is None else dict(condition.parameters),
            **asdict(self.settings),
            "examples": len(self.found.examples),
            "shards": self.count,
            "problems": [asdict(problem) for problem in self.found.problems],
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not path.is_file():
                write_text(path, json.dumps(told, indent=2, ensure_ascii=False) + "\n")
            before = json.loads(path.read_text(encoding="utf-8")).get("fingerprint")
        except (OSError, ValueError, AttributeError) as error:
            raise TrainingError(
                f"The folder of shards '{self.folder}'",
                found=f"cannot be used ({error})",
                expected="an empty one, or the one of a run that stopped, was expected",
                remedy="choose another, or mend what is said",
            ) from error
        if before != self.fingerprint:
            raise TrainingError(
                f"The folder of shards '{self.folder}'",
                found="was begun with other pictures or settings",
                expected="the same were expected",
                remedy="choose an empty folder to begin anew, or take back the change to go on",
            )

    def _list_problems(self) -> None:
        """All that was left out, one a line; the same whichever process writes it. And removes what killed ones have left."""
        lines = [{"name": problem.name, "what": problem.what} for problem in self.found.problems]
        for number in range(self.count):
            lines += told_by(shard_path(self.folder, number).with_suffix(".json"))["problems"]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        path = self.folder / PROBLEMS
        try:
            # Another process that ends now may be here too.
            if not _says(path, text):
                write_text(path, text)
            for left in self.folder.glob("*.unfinished"):
                remove(left)
        except OSError as error:
            if _says(path, text):
                return
            raise TrainingError(
                f"The list '{path}'",
                found=f"could not be written ({error})",
                expected="room and permission for it were expected",
                remedy="free some room and start again",
            ) from error


def _says(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def _file(source: Source) -> tuple[str, bytes]:
    """Suffix and content, as they are. Raises OSError."""
    assert not isinstance(source, Tensor)
    if isinstance(source, Path):
        return source.suffix.lower(), source.read_bytes()
    assert isinstance(source, Member)
    return source.suffix, source.read()


def _stamp(source: Source) -> str:
    if isinstance(source, Path):
        try:
            state = source.stat()
        except OSError:
            return f"{source.name} is not there"  # a problem of its shard
        return f"{source.name} {state.st_size} {state.st_mtime_ns}"
    assert not isinstance(source, Tensor)
    return repr(source.stamp)


def _words(problems: tuple[Problem, ...] | list[Problem]) -> str:
    return "; ".join(f"'{problem.name}' {problem.what}" for problem in problems)


def _opencv_error() -> type[Exception]:
    import cv2  # here, because importing the pack must stay fast

    kind: type[Exception] = cv2.error
    return kind


def share_of_environment(variables: Any = os.environ) -> tuple[int, int]:
    """Number of this process, and how many there are, as `accelerate launch`, torchrun and MPI tell them; (0, 1) where nothing does."""
    for rank, size in (
        ("RANK", "WORLD_SIZE"),
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
        ("PMI_RANK", "PMI_SIZE"),
    ):
        if variables.get(rank, "").isdigit() and variables.get(size, "").isdigit():
            return int(variables[rank]), int(variables[size])
    return 0, 1
