"""Hints of photographs beside them, for docs/preprocessors.md: `python -m control_composer.benchmarks.contact_sheet PHOTOGRAPHS ANNOTATORS OUTPUT`.

PHOTOGRAPHS is a folder of pictures, ANNOTATORS one of annotator files, OUTPUT a .jpg file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import torch

from ..checkpoints.read import open_checkpoint
from ..preprocessors import PREPROCESSORS
from ..preprocessors.annotators import BY_ID
from ..preprocessors.networks.network import Network

NAMES = ("bird.png", "house.png", "room.png")
COLUMNS: tuple[tuple[str, dict[str, bool]], ...] = (
    ("PiDiNet", {"safe": False}),
    ("PiDiNet", {}),
    ("ScribblePiDiNet", {}),
    ("SketchPiDiNet", {}),
)
RESOLUTION, SHOWN = 512, 230


def main(photographs: Path, annotators: Path, output: Path) -> None:
    by_id = {preprocessor.id: preprocessor for preprocessor in PREPROCESSORS}
    rows = []
    for name in NAMES:
        picture = cv2.cvtColor(cv2.imread(str(photographs / name), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        image = torch.from_numpy(picture)[None].float() / 255
        cells = [picture]
        for identifier, settings in COLUMNS:
            preprocessor = by_id[identifier]
            networks = {needed: network(needed, annotators) for needed in preprocessor.needed(settings)}
            hint = preprocessor(image, resolution=RESOLUTION, networks=networks, **settings)
            cells.append((hint[0].numpy() * 255).round().astype(np.uint8))
        rows.append(np.concatenate([shown(cell) for cell in cells], axis=1))
    sheet = cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(output), sheet, [cv2.IMWRITE_JPEG_QUALITY, 80])


def shown(picture: np.ndarray) -> np.ndarray:
    """The middle square, small."""
    height, width = picture.shape[:2]
    side = min(height, width)
    square = picture[(height - side) // 2 :, (width - side) // 2 :][:side, :side]
    small: np.ndarray = cv2.resize(square, (SHOWN, SHOWN), interpolation=cv2.INTER_AREA)
    return small


def network(identifier: str, folder: Path) -> Network:
    annotator = BY_ID[identifier]
    checkpoint = open_checkpoint(folder / annotator.file)
    module = annotator.build(checkpoint.fetch(checkpoint.tensors), file=annotator.file)
    return Network(module, torch.device("cpu"), torch.float32)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
