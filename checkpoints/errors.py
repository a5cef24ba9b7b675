"""Everything that can be wrong with a control file, said in one sentence of four parts."""

from __future__ import annotations

from pathlib import Path

import torch

LONGEST_NAME = 120


def short(name: str) -> str:
    """A name out of an untrusted file, as it can stand in a sentence: printable, on one line, of bounded length."""
    text = "".join(character if character.isprintable() else "?" for character in name[:LONGEST_NAME])
    return text if len(name) <= LONGEST_NAME else text + "..."


class CheckpointError(ValueError):
    """Base of all errors of this folder: which file, what was found, what was expected, what to do."""

    def __init__(self, file: Path | str, *, found: str, expected: str, remedy: str) -> None:
        self.file = Path(file).name
        self.found = found
        self.expected = expected
        self.remedy = remedy
        super().__init__(f"'{self.file}' {found}, but {expected}; {remedy}.")

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.file, self.found, self.expected, self.remedy)


def _rebuild(kind: type[CheckpointError], file: str, found: str, expected: str, remedy: str) -> CheckpointError:
    return kind(file, found=found, expected=expected, remedy=remedy)


class UnreadableFileError(CheckpointError):
    """The file is absent, empty, cut off, text, or no weights file at all."""


class CodeInFileError(CheckpointError):
    """A pickle asks for something other than tensors; nothing of it was run."""


class RefusedFamilyError(CheckpointError):
    """The file is known, and it is no control that this pack loads."""


class UnknownFileError(CheckpointError):
    """No known family has these keys."""


class IncompleteError(CheckpointError):
    """The family is known, but tensors are missing, of other shapes, or too many."""


class AmbiguousHeadsError(CheckpointError):
    """Shapes cannot tell the number of attention heads, and nothing else does."""


class BaseMismatchError(CheckpointError):
    """The control was trained for another base than the connected model's."""


class BadWeightsError(CheckpointError):
    """A tensor holds NaN or infinity, or is of a kind that weights cannot be."""


class TooLargeError(ValueError):
    """A number of a tensor does not fit the dtype that the host wants; `build_network` says it in a sentence."""

    def __init__(self, name: str, number: float, dtype: torch.dtype) -> None:
        self.name = name
        self.number = number
        self.dtype = dtype
        super().__init__(f"{name}: {number:g} is no {dtype}")


class UnionTypeError(CheckpointError):
    """A type of hint was asked for that the file does not know."""


class PoolingError(CheckpointError):
    """Pooling was asked of a network that gives nothing to average."""


class HostLoaderError(CheckpointError):
    """A control that is left to the host's own loader, which does not take it."""


class NoModelError(CheckpointError):
    """The file is only whole together with a model, and none is connected."""


class PairError(CheckpointError):
    """A file lacks its other half, or was given one that it has no use for or that does not fit."""


class AmbiguousWeightsError(CheckpointError):
    """Weights or differences to weights: nothing tells which."""
