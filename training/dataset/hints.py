"""Hints that were made once, on the disk."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...preprocessors.careful_resize import resized
from ...preprocessors.pixels import to_uint8
from ...preprocessors.sizing import Size
from ..errors import TrainingError

VERSION = 1
"""Of the preprocessors' recipes: another one where any of them gives other hints than before."""

Annotate = Callable[[Tensor], Tensor]
"""(1, H, W, 3) float 0..1 -> the hint (1, h, w, 3) float 0..1."""


@dataclass(frozen=True)
class Condition:
    """A preprocessor with its settings, ready to be called."""

    id: str
    annotate: Annotate
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The same for the same preprocessor and settings."""
        told = json.dumps([VERSION, self.id, dict(self.parameters)], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()


class Hints:
    """What a condition says of pictures; kept in `folder`/<id and key of the condition> where a folder is given.

    A file is found again by the pixels that the hint was made of, so it serves every set in which they come.
    """

    def __init__(self, condition: Condition, folder: Path | None) -> None:
        self._condition = condition
        self.folder = None if folder is None else folder / f"{condition.id}-{condition.key[:16]}"

    def of(self, picture: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> (H, W, 3) uint8. Raises TrainingError where it cannot be kept, and what the preprocessor raises."""
        if self.folder is None:
            return self._made(picture)
        name = hashlib.blake2b(repr(picture.shape).encode() + picture.tobytes(), digest_size=20).hexdigest()
        path = self.folder / name[:2] / f"{name}.png"
        kept = _read(path, picture.shape)
        if kept is None:
            kept = self._made(picture)
            _write(path, kept)
        return kept

    def _made(self, picture: np.ndarray) -> np.ndarray:
        image = torch.from_numpy(picture)[None].float() / 255
        hint = self._condition.annotate(image)[0].detach().float().cpu()
        size = Size(*picture.shape[:2])
        if hint.shape[:2] != tuple(size):
            hint = torch.from_numpy(resized(hint.contiguous().numpy(), size))
        return to_uint8(hint)


def _read(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    try:
        with Image.open(path) as image:
            hint = np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError):
        return None  # not there, or spoilt: it is made anew
    return hint if hint.shape == shape else None


def _write(path: Path, hint: np.ndarray) -> None:
    """Whole or not at all, whichever process is first."""
    content = io.BytesIO()
    Image.fromarray(hint).save(content, "PNG", compress_level=1)
    unfinished = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=path.parent, suffix=".unfinished")
        with os.fdopen(handle, "wb") as file:
            file.write(content.getvalue())
        os.replace(unfinished, path)
    except OSError as error:
        if unfinished:
            Path(unfinished).unlink(missing_ok=True)
        raise TrainingError(
            f"A hint of {len(content.getvalue())} bytes",
            found=f"could not be written to '{path}' ({error})",
            expected="room and permission for it were expected",
            remedy="free some room and start again; hints that are there already are not made again",
        ) from error
