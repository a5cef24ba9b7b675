"""A picture with its words and, where there is one, its hint: what a set is made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from torch import Tensor


class Stored(Protocol):
    """A picture file inside of another file, as in a shard."""

    @property
    def stamp(self) -> Hashable:
        """Changes when the content does: names, sizes, times; its `repr` is the same in every process."""
        ...

    def read(self) -> bytes:
        """The whole file, as it would lie on the disk. Raises OSError."""
        ...


Source = Path | Tensor | Stored
"""A picture file, (H, W, C) float 0..1 of 1, 3 or 4 channels, or a file inside of another."""


@dataclass(frozen=True, eq=False)
class Example:
    name: str
    picture: Source
    caption: str
    hint: Source | None = None


@dataclass(frozen=True)
class Problem:
    """An example that is left out."""

    name: str
    what: str
    """In words, so that `name: what` reads well."""


class Found(NamedTuple):
    """What a folder, a list or a shard holds."""

    examples: tuple[Example, ...]
    problems: tuple[Problem, ...] = ()


def fingerprint(examples: Iterable[Example], hints: bool = True) -> str:
    """SHA-256, in hexadecimal digits, of names, captions and what their sources show of themselves; of the `hints` too if asked for."""
    told = hashlib.sha256()
    for one in examples:
        hint = _stamp(one.hint) if hints and one.hint is not None else None
        told.update(json.dumps([one.name, one.caption, _stamp(one.picture), hint]).encode())
    return told.hexdigest()


def _stamp(source: Source) -> str:
    """Of a file its name, size and time; of a tensor its content."""
    if isinstance(source, Path):
        try:
            state = source.stat()
        except OSError:
            return f"{source.name} is not there"
        return f"{source.name} {state.st_size} {state.st_mtime_ns}"
    if isinstance(source, Tensor):
        content = source.detach().float().cpu().contiguous().numpy()
        return f"{tuple(source.shape)} {hashlib.sha256(content.tobytes()).hexdigest()}"
    return repr(source.stamp)
