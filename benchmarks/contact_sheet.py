"""Hints of photographs beside them, for docs/preprocessors.md:
`python -m control_composer.benchmarks.contact_sheet SHEET PHOTOGRAPHS ANNOTATORS OUTPUT`.

SHEET is one of SHEETS, PHOTOGRAPHS a folder of pictures, ANNOTATORS one of annotator files, OUTPUT a .jpg file.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from ..checkpoints.read import open_checkpoint
from ..preprocessors import PREPROCESSORS
from ..preprocessors.annotators import BY_ID
from ..preprocessors.networks.network import Network


class Sheet(NamedTuple):
    names: tuple[str, ...]
    columns: tuple[tuple[str, dict[str, Any]], ...]
    """Preprocessors and their settings, beside each photograph."""
    across: int
    """Photographs beside each other."""
    shown: int
    """Pixels of each picture's sides."""


SHEETS = {
    "pidinet": Sheet(
        ("bird", "house", "room"),
        (("PiDiNet", {"safe": False}), ("PiDiNet", {}), ("ScribblePiDiNet", {}), ("SketchPiDiNet", {})),
        1,
        230,
    ),
    "mlsd": Sheet(
        ("bag", "bird", "boy", "building", "house", "human", "pose1", "room", "toy"),
        (("MLSD", {"network": "MLSD-tiny"}),),
        3,
        300,
    ),
}
RESOLUTION = 512


def main(sheet: Sheet, photographs: Path, annotators: Path, output: Path) -> None:
    by_id = {preprocessor.id: preprocessor for preprocessor in PREPROCESSORS}
    groups = []
    for name in sheet.names:
        picture = cv2.cvtColor(cv2.imread(str(photographs / f"{name}.png"), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        image = torch.from_numpy(picture)[None].float() / 255
        cells = [picture]
        for identifier, settings in sheet.columns:
            preprocessor = by_id[identifier]
            networks = {needed: network(needed, annotators) for needed in preprocessor.needed(settings)}
            hint = preprocessor(image, resolution=RESOLUTION, networks=networks, **settings)
            cells.append((hint[0].numpy() * 255).round().astype(np.uint8))
        groups.append(np.concatenate([shown(cell, sheet.shown) for cell in cells], axis=1))
    rows = [
        np.concatenate(groups[first : first + sheet.across], axis=1) for first in range(0, len(groups), sheet.across)
    ]
    whole = cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(output), whole, [cv2.IMWRITE_JPEG_QUALITY, 80])


def shown(picture: np.ndarray, pixels: int) -> np.ndarray:
    """The middle square, small."""
    height, width = picture.shape[:2]
    side = min(height, width)
    square = picture[(height - side) // 2 :, (width - side) // 2 :][:side, :side]
    small: np.ndarray = cv2.resize(square, (pixels, pixels), interpolation=cv2.INTER_AREA)
    return small


def network(identifier: str, folder: Path) -> Network:
    annotator = BY_ID[identifier]
    checkpoint = open_checkpoint(folder / annotator.file)
    module = annotator.build(checkpoint.fetch(checkpoint.tensors), file=annotator.file)
    return Network(module, torch.device("cpu"), torch.float32)


if __name__ == "__main__":
    main(SHEETS[sys.argv[1]], *map(Path, sys.argv[2:5]))
