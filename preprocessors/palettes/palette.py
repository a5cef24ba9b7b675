"""Which colour each class of a data set has, and whether a network's classes are those."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import PreprocessorError


@dataclass(frozen=True)
class Palette:
    name: str
    """Of the data set."""
    classes: tuple[tuple[tuple[int, int, int], str], ...]
    """By number of the class: its colour, RGB of 8 bits, and its names, separated by commas."""

    def colours(self) -> Tensor:
        """(classes, 3) float32 in 0..1."""
        return torch.tensor([colour for colour, _ in self.classes], dtype=torch.float32) / 255

    def check(self, labels: Mapping[int, str], file: str) -> None:
        """Whether the classes of a network are these in this order; `labels` are its `id2label`, `file` says where they were read.

        Networks without names, whose classes the library calls LABEL_0 and so on, are told by their number of classes alone. Raises
        PreprocessorError.
        """
        wanted = f"the {len(self.classes)} classes of {self.name} in their order were expected"
        advice = "put the published folder there, or choose the network that this one is"
        if sorted(labels) != list(range(len(self.classes))):
            raise PreprocessorError(f"'{file}': found {len(labels)} classes, but {wanted}; {advice}.")
        if all(label == f"LABEL_{number}" for number, label in labels.items()):
            return
        for number, (_, names) in enumerate(self.classes):
            if not words(names) & words(labels[number]):
                raise PreprocessorError(
                    f"'{file}': found '{labels[number]}' as class {number}, which is '{names}', but {wanted}; {advice}."
                )


def words(names: str) -> set[str]:
    return {name.strip().lower() for name in names.split(",")}
