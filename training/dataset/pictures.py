"""A picture as 8-bit RGB, from wherever it lies."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ...preprocessors.pixels import as_rgb, to_uint8
from ...preprocessors.sizing import Size
from .example import Source

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"})
FOREIGN = frozenset({".heic", ".heif", ".jxl", ".jp2", ".psd", ".tga", ".svg", ".dng", ".cr2", ".nef", ".arw", ".exr"})
"""Of pictures too, but Pillow cannot read them, or has no one size for them."""
ORIENTATION = 0x0112
"""The EXIF tag; from 5 on the picture lies on its side."""
WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")


class UnreadableError(ValueError):
    """No picture: in words that follow the file's name."""


def read_picture(source: Source) -> Image.Image:
    """RGB, upright as its EXIF says, what is transparent laid on white, 16 bits brought to 8. Raises UnreadableError."""
    if isinstance(source, Tensor):
        return Image.fromarray(_eight_bit(source))
    try:
        with _opened(source) as image:
            ImageOps.exif_transpose(image, in_place=True)
            return _rgb(image)
    except Exception as error:
        raise _unreadable(error) from error


def check_picture(source: Source, whole: bool) -> Size:
    """The upright size, from the file's head; with `whole` the file is read to its end. Raises UnreadableError."""
    if isinstance(source, Tensor):
        return Size(*_eight_bit(source).shape[:2])
    try:
        with _opened(source) as image:
            size = Size(image.height, image.width)
            if whole:
                # A JPEG is then read at an eighth of its size, which takes a fraction of the time.
                image.draft(None, (1, 1))
                image.load()
            # Not that of PNG, which would read to the end for one that comes late.
            sideways = Image.Image.getexif(image).get(ORIENTATION, 1) >= 5
            return Size(*size[::-1]) if sideways else size
    except Exception as error:
        raise _unreadable(error) from error


def _opened(source: Source) -> Image.Image:
    assert not isinstance(source, Tensor)
    return Image.open(source if isinstance(source, Path) else io.BytesIO(source.read()))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        sixteen = np.asarray(image).astype(np.float32)
        return Image.fromarray((sixteen / 257).round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise UnreadableError(
            "has floating-point pixels, of which nothing says what is white; save it with 8 or 16 bits"
        )
    if image.mode in WITH_ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _eight_bit(picture: Tensor) -> np.ndarray:
    if picture.ndim != 3 or picture.shape[2] not in (1, 3, 4) or 0 in picture.shape or not picture.is_floating_point():
        raise UnreadableError(f"is a {picture.dtype} tensor of shape {tuple(picture.shape)}, which is no picture")
    if not bool(torch.isfinite(picture).all()):
        raise UnreadableError("has pixels that are NaN or infinite")
    return to_uint8(as_rgb(picture[None].float())[0])


def _unreadable(error: Exception) -> UnreadableError:
    """Pillow's readers raise whatever they meet in a broken file, OverflowError and struct.error among it."""
    if isinstance(error, UnreadableError):
        return error
    if isinstance(error, FileNotFoundError):
        return UnreadableError("is not there")
    lines = str(error).splitlines()
    if isinstance(error, UnidentifiedImageError):
        return UnreadableError("is no picture file that can be read")
    return UnreadableError(f"cannot be read ({lines[0] if lines else type(error).__name__})")
