"""Finished hints at another size: lines stay lines, labels stay labels, and the mark of inpaint hints stays a mark."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .hint_size import Mode, check_sizes
from .pixels import as_rgb, check_picture
from .sizing import Size
from .thinning import ridges, thinned

LABELS = 200
"""A picture of more than two and fewer colours than this is a map of labels. This and the next three: sd-webui-controlnet, high_quality_resize."""
DARK, LIGHT = 16, 240
"""A picture of two colours is black and white if its numbers reach below and above these, of 255."""
WHITE = 127
MARK = -1.0
"""What inpaint hints have where the picture is to be painted anew."""


def placed(hint_bhwc: Tensor, target: Size, mode: Mode) -> Tensor:
    """Each frame carefully resized and laid onto a canvas of `target` pixels; what *fit* leaves over has the median colour of the hint's border.

    (B, H, W, 3) float 0..1, or `MARK` where it is marked for inpainting -> (B, h, w, 3) float32 on the same device. Each frame is judged alone.
    Raises PreprocessorError.
    """
    hint_bhwc = as_rgb(hint_bhwc)
    check_picture(hint_bhwc, "hint")
    check_sizes(Size(*hint_bhwc.shape[1:3]), target, mode)
    canvases = torch.empty((hint_bhwc.shape[0], *target, 3))
    for frame, canvas in zip(hint_bhwc, canvases, strict=True):
        canvas.copy_(torch.from_numpy(placed_frame(frame.float().cpu().contiguous().numpy(), target, mode)))
    return canvases.to(hint_bhwc.device)


def placed_frame(hint: np.ndarray, target: Size, mode: Mode) -> np.ndarray:
    """(H, W, 3) float32 -> (h, w, 3) float32."""
    size = Size(*hint.shape[:2])
    if mode == "stretch":
        return resized(hint, target)
    scales = (target.height / size.height, target.width / size.width)
    scale = (max if mode == "crop" else min)(scales)
    found = resized(hint, Size(max(1, round(size.height * scale)), max(1, round(size.width * scale))))
    if mode == "crop":
        top, left = ((whole - part) // 2 for whole, part in zip(found.shape, target, strict=False))
        return found[top : top + target.height, left : left + target.width]
    top, left = ((whole - part) // 2 for whole, part in zip(target, found.shape, strict=False))
    border = np.concatenate([hint[0], hint[-1], hint[:, 0], hint[:, -1]])
    canvas = np.empty((*target, 3), np.float32)
    # Beside an inpaint hint is nothing yet, so it is to be painted too.
    # The lower of the two in the middle, where the recipe averages them: between two labels is none.
    canvas[:] = MARK if (hint < 0).any() else np.sort(border, axis=0)[len(border) // 2 - 1]
    canvas[top : top + found.shape[0], left : left + found.shape[1]] = found
    return canvas


def resized(hint: np.ndarray, size: Size) -> np.ndarray:
    """One hint (H, W, 3) float32 at `size`.

    The nearest pixel for maps of labels; area averaging to fewer pixels and cubic to more for the rest. Black and white hints are black and white
    again, by Otsu's threshold, and lines of one pixel are lines of one pixel.
    """
    import cv2  # here, because importing the pack must stay fast

    if hint.shape[:2] == tuple(size):
        return hint
    marked: np.ndarray = np.all(hint < 0, axis=2)
    if marked.any():
        return with_marks(hint, marked, size)
    eight = (hint * 255).round().clip(0, 255).astype(np.uint8)
    colours, before, after = count_colours(eight), eight.shape[0] * eight.shape[1], size.height * size.width
    cubic_or_area = cv2.INTER_AREA if after < before else cv2.INTER_CUBIC
    to = (size.width, size.height)
    if colours == 2 and eight.min() < DARK and eight.max() > LIGHT:
        grey = cv2.resize(eight, to, interpolation=cubic_or_area).astype(np.float32).mean(axis=2).astype(np.uint8)
        white = black_and_white(grey, thin=is_one_pixel(eight), pruned=after > before)
        return np.repeat(white[..., None], 3, axis=2).astype(np.float32) / 255
    found: np.ndarray = cv2.resize(
        hint, to, interpolation=cv2.INTER_NEAREST if 2 < colours < LABELS else cubic_or_area
    ).clip(0, 1)
    return found


def with_marks(hint: np.ndarray, marked: np.ndarray, size: Size) -> np.ndarray:
    """A hint whose marked pixels are `MARK`: they are marked afterwards where they cover at least half, and colour nothing beside them."""
    import cv2  # here, because importing the pack must stay fast

    smaller = size.height * size.width < marked.size
    values = np.concatenate([np.where(marked[..., None], 0, hint), ~marked[..., None]], axis=2).astype(np.float32)
    sized = cv2.resize(values, (size.width, size.height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
    kept = sized[..., 3:]
    return np.where(kept > 0.5, (sized[..., :3] / kept.clip(0.5)).clip(0, 1), MARK).astype(np.float32)


def count_colours(picture: np.ndarray) -> int:
    """How many colours (H, W, 3) uint8 has; where it is `LABELS` or more, possibly fewer than there are, but not fewer than that."""
    codes = (picture.astype(np.uint32) * np.array([1 << 16, 1 << 8, 1], np.uint32)).sum(axis=2, dtype=np.uint32).ravel()
    some = len(np.unique(codes[:: max(1, codes.size // 4096)]))
    return some if some >= LABELS else len(np.unique(codes))


def is_one_pixel(picture: np.ndarray) -> bool:
    """Whether most of what is white in (H, W, 3) uint8 is lost when lines of fewer than three pixels are."""
    import cv2  # here, because importing the pack must stay fast

    opened = cv2.morphologyEx(picture, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    return 2 * int((opened < picture).sum()) > int((picture > WHITE).sum())


def black_and_white(grey: np.ndarray, thin: bool, pruned: bool) -> np.ndarray:
    """(H, W) uint8 -> uint8 of 0 and 255, split at Otsu's threshold; where `thin` only its ridges, as lines of one pixel."""
    import cv2  # here, because importing the pack must stay fast

    white = cv2.threshold(ridges(grey) if thin else grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[1]
    return thinned(white, pruned) if thin else white
