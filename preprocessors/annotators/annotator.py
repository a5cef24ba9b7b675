"""What the pack knows about the published files of a network: where each comes from, under which terms, and what it becomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

HUGGING_FACE = "https://huggingface.co/"


@dataclass(frozen=True)
class File:
    """One published file."""

    name: str
    bytes: int = 0
    """Its size; 0 where it is not known to the byte."""
    sha256: str | None = None
    """Its checksum; None where it is not known."""
    address: str = ""

    @property
    def repository(self) -> str:
        """`owner/name` and the folder in it, as packs that mirror the hub's layout name it; empty for other addresses."""
        if not self.address.startswith(HUGGING_FACE):
            return ""
        repository, _, path = self.address.removeprefix(HUGGING_FACE).partition("/resolve/main/")
        return "/".join([repository, *path.split("/")[:-1]])


@dataclass(frozen=True)
class Annotator:
    """One network.

    `reads` says what its files become it by: "tensors", `build(weights, file=..., operations=..., dtype=...)` of its one file, or "path",
    `build(path, dtype=...)` of the file or, where there is a `folder`, of the folder. Either raises PreprocessorError.
    """

    id: str
    files: tuple[File, ...]
    licence: str
    commercial: str
    """Who may use it commercially, in words that end a sentence."""
    build: Callable[..., nn.Module]
    values_per_pixel: int
    """How many numbers for each pixel that it looks at are in memory at once while it computes: twice those in its tensors, for the
    convolutions' own needs."""
    half: bool = True
    """Whether it computes in half precision without harm."""
    folder: str = ""
    """`owner/name` on the hub, for networks whose files share a folder; empty for a single file."""
    reads: Literal["tensors", "path"] = "tensors"

    @property
    def file(self) -> str:
        """The name of its file, of a folder's weights: the last of its files."""
        return self.files[-1].name

    @property
    def bytes(self) -> int:
        """The size of all its files; 0 where one's is not known to the byte."""
        sizes = [file.bytes for file in self.files]
        return sum(sizes) if all(sizes) else 0
