"""The case of a union network that reads two types of hint in one pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from control_composer.control import Layer
from control_composer.control.union_layer import TypedPicture, union_layer_of
from control_composer.tests import narrow
from control_composer.tests.control.case import IMAGE, Case

OTHER = narrow.picture(1, 96, 96, seed=8)


class UnionCase(Case):
    """No loader of the host gives a union network several hints."""

    def layer(self, image: Tensor = IMAGE, **settings: Any) -> Layer:
        pictures = [TypedPicture(image, "segment"), TypedPicture(OTHER, "openpose", 0.6)]
        return union_layer_of(self.ours, pictures, **settings, node="Union Control Layer")


def several_types(union: Callable[[Path], Case]) -> Callable[[Path], Case]:
    def make(folder: Path) -> Case:
        one = union(folder)
        return UnionCase(one.kind, one.model, one.ours, None, one.description)

    return make
