"""The careful resize of hints against its recipe, written here on 8-bit pictures as the published one is, with its own thinning."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("cv2")

import cv2

from control_composer.preprocessors import PreprocessorError, canny
from control_composer.preprocessors.careful_resize import placed
from control_composer.preprocessors.hint_size import MODES
from control_composer.preprocessors.inpaint import inpaint
from control_composer.preprocessors.sizing import Size
from control_composer.tests.preprocessors.pictures import as_image, noise, photographs

L, CORNER = ["---", ".+.", "+++"], [".--", "++-", ".+."]
RIGHT_END, LEFT_END = ["---", "-+-", "..-"], ["---", "-+-", "-.."]


def quarter(pattern: list[str]) -> list[str]:
    """Turned by 90° against the clock."""
    return ["".join(row[column] for row in pattern) for column in (2, 1, 0)]


def hit(white: np.ndarray, pattern: list[str]) -> np.ndarray:
    """Where the pattern fits; what is outside of the picture fits all."""
    height, width = white.shape
    fits = np.ones((height, width), bool)
    for y, x in itertools.product(range(3), range(3)):
        wanted = pattern[y][x]
        if wanted == ".":
            continue
        around = np.full((height + 2, width + 2), wanted == "+")
        around[1:-1, 1:-1] = white
        fits &= around[y : y + height, x : x + width] == (wanted == "+")
    return fits


def remove(white: np.ndarray, patterns: list[list[str]]) -> bool:
    removed = False
    for _ in range(4):
        for pattern in patterns:
            found = hit(white, pattern)
            white[found] = False
            removed |= bool(found.any())
        patterns = [quarter(pattern) for pattern in patterns]
    return removed


def thin(y: np.ndarray, prune: bool) -> np.ndarray:
    white = y > 127
    for _ in range(32):
        if not remove(white, [L, CORNER]):
            break
    if prune:
        remove(white, [RIGHT_END, LEFT_END])
    return white * np.uint8(255)


def suppressed(x: np.ndarray) -> np.ndarray:
    y = np.zeros_like(x)
    around = np.pad(x, 1)
    height, width = x.shape
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        one = around[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
        other = around[1 - dy : 1 - dy + height, 1 - dx : 1 - dx + width]
        keep = (x >= one) & (x >= other)
        y[keep] = x[keep]
    return y


def high_quality_resize(x: np.ndarray, height: int, width: int) -> np.ndarray:
    if x.shape[:2] == (height, width):
        return x
    colours = len({tuple(pixel) for pixel in x.reshape(-1, 3).tolist()})
    smaller, bigger = height * width < x.shape[0] * x.shape[1], height * width > x.shape[0] * x.shape[1]
    binary = one_pixel = False
    if colours == 2 and x.min() < 16 and x.max() > 240:
        binary = True
        opened = cv2.dilate(cv2.erode(x, np.ones((3, 3), np.uint8)), np.ones((3, 3), np.uint8))
        one_pixel = np.count_nonzero(opened < x) * 2 > np.count_nonzero(x > 127)
    method = cv2.INTER_CUBIC
    if smaller:
        method = cv2.INTER_AREA
    if 2 < colours < 200:
        method = cv2.INTER_NEAREST
    y = cv2.resize(x, (width, height), interpolation=method)
    if binary:
        y = y.astype(np.float32).mean(axis=2).clip(0, 255).astype(np.uint8)
        if one_pixel:
            y = suppressed(y)
        level, _ = cv2.threshold(y, 0, 255, cv2.THRESH_OTSU)
        y = np.where(y > level, 255, 0).astype(np.uint8)
        if one_pixel:
            y = thin(y, prune=bigger)
        y = np.stack([y] * 3, axis=2)
    return y


def expected(x: np.ndarray, h: int, w: int, mode: str) -> np.ndarray:
    height, width = x.shape[:2]
    if mode == "stretch":
        return high_quality_resize(x, h, w)
    k = max(h / height, w / width) if mode == "crop" else min(h / height, w / width)
    y = high_quality_resize(x, max(1, int(np.round(height * k))), max(1, int(np.round(width * k))))
    if mode == "crop":
        top, left = max(0, (y.shape[0] - h) // 2), max(0, (y.shape[1] - w) // 2)
        return y[top : top + h, left : left + w]
    borders = np.concatenate([x[0, :, :], x[-1, :, :], x[:, 0, :], x[:, -1, :]], axis=0)
    # Of an even number of values the recipe takes the mean of the middle ones; here the lower, which is a colour that is there.
    canvas = np.tile(np.quantile(borders, 0.5, axis=0, method="lower").astype(x.dtype), (h, w, 1))
    top, left = max(0, (h - y.shape[0]) // 2), max(0, (w - y.shape[1]) // 2)
    canvas[top : top + y.shape[0], left : left + y.shape[1]] = y
    return canvas


def edges(height: int, width: int) -> np.ndarray:
    found = cv2.Canny(noise(height, width, 3), 60, 120)
    assert found.any()
    return np.repeat(found[..., None], 3, axis=2)


def labels(height: int, width: int) -> np.ndarray:
    colours = np.random.default_rng(1).integers(0, 256, (11, 3), dtype=np.uint8)
    return colours[cv2.resize(noise(height, width, 4)[..., 0], (width, height)).astype(int) * 11 // 256]


def spots(height: int, width: int) -> np.ndarray:
    return np.repeat(np.where(cv2.blur(noise(height, width, 5), (9, 9)) > 120, 255, 0).astype(np.uint8)[..., :1], 3, 2)


KINDS = {"soft": noise, "edges": edges, "labels": labels, "spots": spots}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(66, 90), (131, 57)])
def test_the_recipe(kind: str, mode: str, size: tuple[int, int]) -> None:
    """Black and white and labels to the number; soft ones, which stay numbers here and are rounded to 8 bits there, within 1.5 of 255."""
    picture = KINDS[kind](*size)
    for target in ((64, 48), (97, 333), size):
        found = placed(as_image(picture), Size(*target), mode)[0].numpy() * 255
        wanted = expected(picture, *target, mode)
        assert found.shape == wanted.shape
        difference = np.abs(found - wanted)
        assert difference.max() <= (1.5 if kind == "soft" else 1e-4), (target, difference.max())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (7, 5), (300, 2)])
def test_small_ones(mode: str, size: tuple[int, int]) -> None:
    for picture in (noise(*size), np.full((*size, 3), 255, np.uint8), np.zeros((*size, 3), np.uint8)):
        for target in ((1, 1), (33, 17)):
            found = placed(as_image(picture), Size(*target), mode)
            assert found.shape == (1, *target, 3)
            assert np.abs(found[0].numpy() * 255 - expected(picture, *target, mode)).max() <= 1.5


def test_edges_of_photographs_stay_lines(shared: Path) -> None:
    """Twice as large and half as large, and black and white in either case, as the recipe has it."""
    for photograph in photographs(shared)[:3]:
        hint = canny(as_image(photograph), resolution=96)
        for target in (tuple(side * 2 for side in hint.shape[1:3]), tuple(side // 2 for side in hint.shape[1:3])):
            found = placed(hint, Size(*target), "stretch")[0].numpy()
            assert set(np.unique(found)) == {0, 1}
            assert np.array_equal(found * 255, expected((hint[0].numpy() * 255).astype(np.uint8), *target, "stretch"))
            white = found[..., 0].astype(np.uint8)
            # A line that is two pixels wide has squares of four.
            assert (cv2.erode(white, np.ones((2, 2), np.uint8)).sum()) < 0.1 * white.sum()


def test_each_frame_is_judged_alone() -> None:
    frames = as_image(*(KINDS[kind](50, 70) for kind in KINDS))
    together = placed(frames, Size(80, 64), "fit")
    assert torch.equal(together, torch.cat([placed(frame[None], Size(80, 64), "fit") for frame in frames]))


def test_inpaint_marks_stay_marks() -> None:
    """Marked where the mask, resized, is above a half; no colour beside them is darkened; and around the picture all is to be painted."""
    image, mask = torch.full((1, 40, 60, 3), 0.75), torch.zeros(1, 40, 60)
    mask[:, 10:20, 15:40] = 1
    hint = inpaint(image, mask)
    larger = placed(hint, Size(80, 120), "stretch")
    marked = (larger == -1).all(dim=3)
    assert torch.equal(marked, mask.repeat_interleave(2, 1).repeat_interleave(2, 2) > 0)
    assert torch.allclose(larger[~marked], torch.tensor(0.75), atol=1e-5)
    fitted = placed(hint, Size(80, 80), "fit")
    assert (fitted[:, 0] == -1).all() and (fitted[:, -1] == -1).all() and (fitted[:, 20, 0] - 0.75).abs().max() < 1e-5


def test_soft_hints_are_not_rounded() -> None:
    ramp = torch.linspace(0, 0.01, 64).reshape(1, 1, 64, 1).expand(1, 64, 64, 3)
    assert len(placed(ramp.repeat(1, 1, 1, 1) + as_image(noise(64, 64)) * 0.9, Size(40, 40), "crop").unique()) > 3000


def test_it_leaves_what_it_gets_and_takes_other_types() -> None:
    image = as_image(noise(30, 44))
    before = image.clone()
    half = placed(image.half(), Size(20, 20), "crop")
    assert half.dtype == torch.float32 and torch.allclose(half, placed(image, Size(20, 20), "crop"), atol=2e-3)
    assert torch.equal(image, before)


def test_what_is_no_hint() -> None:
    with pytest.raises(PreprocessorError, match="hint: found a"):
        placed(torch.zeros(8, 8, 3), Size(8, 8), "fit")
    with pytest.raises(PreprocessorError, match="hint: found pixels that are NaN"):
        placed(torch.full((1, 8, 8, 3), torch.nan), Size(8, 8), "fit")
    with pytest.raises(PreprocessorError, match=r"canvas: found 0×8 pixels"):
        placed(torch.zeros(1, 8, 8, 3), Size(8, 0), "fit")
