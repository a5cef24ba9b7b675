"""The networks that preprocessors use, and the explicit list of all of them."""

from __future__ import annotations

from .annotator import Annotator, File
from .depth import DEPTHS
from .dwpose import DWPOSES
from .edges import EDGES, PIDINETS
from .lines import LINES
from .normals import NORMALS
from .pose import POSES
from .segmentation import SEGMENTATIONS

ANNOTATORS: tuple[Annotator, ...] = (
    *EDGES,
    *LINES,
    *DEPTHS,
    *DWPOSES,
    *NORMALS,
    *SEGMENTATIONS,
    *POSES,
)

BY_ID = {annotator.id: annotator for annotator in ANNOTATORS}

__all__ = ["ANNOTATORS", "BY_ID", "PIDINETS", "Annotator", "File"]
