"""The colours that segmentation ControlNets were trained on."""

from __future__ import annotations

from .ade20k import ADE20K
from .coco import COCO
from .palette import Palette

__all__ = ["ADE20K", "COCO", "Palette"]
