"""What comfyui_controlnet_aux gives, written here from its recipes: 8 bits cut off, resized, padded to 64 by repetition, found, cut, 8 bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("cv2")

import cv2

from control_composer.preprocessors import PREPROCESSORS, Preprocessor, PreprocessorError
from control_composer.preprocessors.aux_mode import WAYS, as_controlnet_aux, resolution_as_aux, way_of
from control_composer.preprocessors.canny import CANNY
from control_composer.preprocessors.pose import Person, Pose
from control_composer.tests.preprocessors.annotator_weights import random_network, with_networks
from control_composer.tests.preprocessors.pictures import noise, photographs
from control_composer.tests.preprocessors.test_recipes import RECIPES

BY_ID = {one.id: one for one in PREPROCESSORS}
Recipe = Callable[[np.ndarray], np.ndarray]


def detected(image: torch.Tensor, resolution: int, recipe: Recipe, enlarge: int = cv2.INTER_CUBIC) -> np.ndarray:
    """One frame (H, W, 3) -> uint8."""
    x = np.asarray(image * 255.0, dtype=np.uint8)
    if resolution:
        height, width, _ = x.shape
        k = float(resolution) / float(min(height, width))
        height, width = int(np.round(float(height) * k)), int(np.round(float(width) * k))
        x = cv2.resize(x, (width, height), interpolation=enlarge if k > 1 else cv2.INTER_AREA)
        right, below = (int(np.ceil(float(side) / 64.0) * 64 - side) for side in (width, height))
        x = np.pad(x, [[0, below], [0, right], [0, 0]], mode="edge")
        y = recipe(x)[:height, :width]
    else:
        y = recipe(x)
    y = y.astype(np.uint8)
    return y if y.ndim == 3 else np.repeat(y[..., None], 3, axis=2)


def colours(x: np.ndarray, resolution: int) -> np.ndarray:
    h, w = x.shape[:2]
    new_h, new_w = (resolution, round(w / h * resolution)) if h < w else (round(h / w * resolution), resolution)
    x = cv2.resize(x, (new_w, new_h), interpolation=cv2.INTER_AREA)
    small = cv2.resize(x, (new_w // 64, new_h // 64), interpolation=cv2.INTER_CUBIC)
    return cv2.resize(small, (new_w, new_h), interpolation=cv2.INTER_NEAREST)


def tile(x: np.ndarray, halvings: int) -> np.ndarray:
    h, w = (int(np.round(side / 64.0)) * 64 for side in x.shape[:2])
    y = cv2.resize(x, (w // 2**halvings, h // 2**halvings), interpolation=cv2.INTER_AREA)
    for _ in range(halvings):
        y = cv2.pyrUp(y)
    return y


def between(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """A frame whose numbers are no 8-bit steps, so that rounding and cutting off differ."""
    x = torch.from_numpy(noise(height, width, seed)).float() / 255
    return (x + torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) / 255).clamp(0, 1)


def found(preprocessor: Preprocessor, image: torch.Tensor, resolution: int, **settings: Any) -> np.ndarray:
    hint, _ = as_controlnet_aux(preprocessor, image[None], resolution, **settings)
    assert hint.dtype == torch.float32
    steps = hint[0] * 255
    assert torch.allclose(steps, steps.round(), atol=1e-4)
    return steps.round().numpy().astype(np.uint8)


PADDED = {
    "Canny": lambda x: cv2.Canny(x, 100, 200),
    **{
        name: RECIPES[name][0]
        for name in ("PyramidCanny", "LineartStandard", "XDoG", "Binary", "RecolorLuminance", "RecolorIntensity")
    },
}


@pytest.mark.parametrize("name", PADDED)
def test_most_of_them(name: str, shared: Path) -> None:
    """On photographs smaller and larger, and where the longer side is no multiple of 64; at 0 nothing is padded."""
    frames = [torch.from_numpy(photograph).float() / 255 for photograph in photographs(shared)[:2]] + [between(70, 100)]
    for image in frames:
        for resolution in (0, 128, 200):
            wanted = detected(image, resolution, PADDED[name])
            assert np.array_equal(found(BY_ID[name], image, resolution), wanted), resolution


def test_the_padding_can_be_seen() -> None:
    """The median of standard line art is over the padding too: without it the hint is another."""
    image = between(70, 101)
    padded = found(BY_ID["LineartStandard"], image, 70)
    alone = detected(image, 0, RECIPES["LineartStandard"][0])
    assert padded.shape == alone.shape and (padded != alone).any()


def test_scribbles_are_black_on_white() -> None:
    for resolution in (64, 150):
        wanted = 255 - detected(between(70, 90), resolution, RECIPES["Scribble"][0], enlarge=cv2.INTER_AREA)
        assert np.array_equal(found(BY_ID["Scribble"], between(70, 90), resolution), wanted)


def test_the_shuffle_is_of_the_padded_picture() -> None:
    image = between(90, 130)
    wanted = detected(image, 80, lambda x: RECIPES["Shuffle"][0](x, seed=7))
    assert np.array_equal(found(BY_ID["Shuffle"], image, 80, seed=7), wanted)


def test_the_colour_grid_is_not_padded() -> None:
    for size, resolution in (((90, 131), 128), ((131, 90), 64), ((90, 90), 256)):
        x = np.asarray(between(*size) * 255.0, dtype=np.uint8)
        assert np.array_equal(found(BY_ID["ColorGrid"], between(*size), resolution), colours(x, resolution))


def test_tiles_are_of_the_picture_itself() -> None:
    """Rounded to multiples of 64, or as they are; the resolution is not read."""
    image = between(90, 161)
    x = np.asarray(image * 255.0, dtype=np.uint8)
    assert found(BY_ID["Tile"], image, 512).shape == (64, 192, 3)
    for halvings in (1, 3):
        assert np.array_equal(found(BY_ID["Tile"], image, 512, halvings=halvings), tile(x, halvings))
    settings = {"scale": 2.0, "blur": 3.0}
    wanted = RECIPES["TileSimple"][0](x, **settings)
    assert np.array_equal(found(BY_ID["TileSimple"], image, 512, **settings), wanted)


def sigmoid(preprocessor: Preprocessor, image: torch.Tensor) -> np.ndarray:
    """What the network of `with_networks` finds in a picture padded already, 0..1."""
    return preprocessor(image, safe=False)[0, ..., 0].numpy()


def safe(x: np.ndarray) -> np.ndarray:
    return (x.astype(np.float32) * 3).astype(np.int32).astype(np.float32) / 2


def strokes(x: np.ndarray) -> np.ndarray:
    blurred = cv2.GaussianBlur(x.astype(np.float32), (0, 0), 3.0)
    kept = np.zeros_like(blurred)
    for line in ("000111000", "010010010", "100010001", "001010100"):
        kernel = np.array([int(one) for one in line], np.uint8).reshape(3, 3)
        np.putmask(kept, cv2.dilate(blurred, kernel) == blurred, blurred)
    z = cv2.GaussianBlur(np.where(kept > 127, 255, 0).astype(np.uint8), (0, 0), 3.0)
    return np.where(z > 4, 255, 0).astype(np.uint8)


def test_soft_edges_and_their_strokes() -> None:
    """Cut off to 8 bits; the strokes of HED are those of the padded picture, PiDiNet's are found on these again."""
    image = between(70, 100)
    hed, pidinet = with_networks(BY_ID["HED"]), with_networks(BY_ID["PiDiNet"])

    def soft(one: Preprocessor) -> Recipe:
        def recipe(x: np.ndarray) -> np.ndarray:
            return (safe(sigmoid(one, torch.from_numpy(x)[None].float() / 255)) * 255.0).clip(0, 255).astype(np.uint8)

        return recipe

    for one in (hed, pidinet):
        assert np.array_equal(found(one, image, 90), detected(image, 90, soft(one)))
    wanted = detected(image, 90, lambda x: strokes(soft(hed)(x)))
    assert np.array_equal(found(with_networks(BY_ID["ScribbleHED"]), image, 90), wanted)
    once = detected(image, 90, lambda x: strokes(soft(pidinet)(x)))
    assert np.array_equal(found(with_networks(BY_ID["ScribblePiDiNet"]), image, 90)[..., 0], strokes(once[..., 0]))


def test_anyline_puts_8_bit_halves_together() -> None:
    image, network = between(70, 100), random_network("AnyLine")

    def edges(x: np.ndarray) -> np.ndarray:
        soft = BY_ID["TEED"](torch.from_numpy(x)[None].float() / 255, networks={"TEED": network}, safe_steps=2)
        return (soft[0, ..., 0].numpy() * 255.0).clip(0, 255).astype(np.uint8)

    base = detected(image, 90, edges)[..., 0] / np.float32(255)
    lines = detected(image, 90, lambda x: RECIPES["LineartStandard"][0](x, sigma=2.0, intensity_threshold=3))
    top = lines[..., 0] / np.float32(255)
    top = np.where((top >= 0.2) & (top <= 0.9), top, 0)
    count, spots, statistics, _ = cv2.connectedComponentsWithStats((top > 0).astype(np.uint8), connectivity=4)
    small = [spot for spot in range(1, count) if statistics[spot, cv2.CC_STAT_AREA] < 5]
    top[np.isin(spots, small)] = 0
    wanted = np.where(top > 0, 1 - (1 - top) * (1 - base), base)
    settings = {"lower": 0.2, "upper": 0.9, "smallest": 5}
    hint, _ = as_controlnet_aux(BY_ID["AnyLine"], image[None], 90, {"AnyLine": network}, **settings)
    assert small and (top > 0).any() and (base > 0).any()
    assert np.abs(hint[0].numpy() - wanted[..., None]).max() < 1e-6


def test_depth_anything_has_two_ways() -> None:
    ways = [way_of(BY_ID["DepthAnything"], {"network": f"Depth-Anything-{one}-Small"}) for one in ("V1", "V2")]
    assert [way.looks_at for way in ways] == ["padded", "own size, then resized"]


def test_what_is_transparent_is_white_in_8_bits() -> None:
    image = torch.cat([between(64, 64), torch.rand((64, 64, 1), generator=torch.Generator().manual_seed(3))], dim=2)
    x = np.asarray(image * 255.0, dtype=np.uint8)
    alpha = x[..., 3:].astype(np.float32) / 255
    on_white = (x[..., :3].astype(np.float32) * alpha + 255 * (1 - alpha)).clip(0, 255).astype(np.uint8)
    assert np.array_equal(found(CANNY, image, 64)[..., 0], cv2.Canny(on_white, 100, 200))


def test_resolutions() -> None:
    assert [resolution_as_aux(one) for one in (0, 1, 63, 64, 100)] == [0, 512, 512, 64, 100]
    assert [resolution_as_aux(one, WAYS["MangaLine"]) for one in (0, 10, 512, 513)] == [0, 512, 512, 768]
    assert as_controlnet_aux(CANNY, between(16, 20)[None], 8)[0].shape == (1, 512, 640, 3)
    with pytest.raises(PreprocessorError, match="resolution: found -1"):
        as_controlnet_aux(CANNY, between(16, 20)[None], -1)


def test_dark_lines_are_rounded_before_they_are_light() -> None:
    """255 - trunc(255 x), where the hint here is 1 - x."""
    generator = torch.Generator().manual_seed(2)
    x = (
        torch.randint(0, 255, (1, 64, 64, 3), generator=generator)
        + 0.01
        + 0.98 * torch.rand((1, 64, 64, 3), generator=generator)
    ) / 255
    for name in ("Lineart", "LineartAnime", "MangaLine"):
        one = Preprocessor(
            name, name, lambda image, resolution: 1 - x.repeat(1, 4, 4, 1)[:, : image.shape[1]], (), "", ""
        )
        wanted = 255 - (x[0].numpy() * np.float32(255)).astype(np.uint8)
        assert np.abs(found(one, between(64, 64), 64)[:64, :64].astype(int) - wanted).max() == 0


def test_hints_of_the_pictures_own_size_are_resized() -> None:
    """DWPose draws on the picture, and Depth Anything 2 looks at it: the hint is resized after that."""
    seen = []

    def draw(image: torch.Tensor, resolution: int) -> Any:
        seen.append((tuple(image.shape), resolution))
        return image, [Pose(*image.shape[1:3])] * len(image)

    image = between(70, 100)
    one = Preprocessor("DWPose", "", draw, (), "", "", data="pose")
    hint, (pose,) = as_controlnet_aux(one, image[None], 90)
    x = np.asarray(image * 255.0, dtype=np.uint8)
    wanted = cv2.resize(x, (129, 90), interpolation=cv2.INTER_CUBIC)
    assert np.array_equal((hint[0] * 255).round().numpy().astype(np.uint8), wanted)
    assert seen == [((1, 70, 100, 3), 0)] and (pose.height, pose.width) == (70, 100)


def test_poses_of_a_padded_picture_are_of_the_picture() -> None:
    person = Person(np.ones((18, 3), np.float32))
    one = Preprocessor(
        "OpenPose", "", lambda image, resolution: (image, [Pose(*image.shape[1:3], (person,))]), (), "", "", data="pose"
    )
    hint, (pose,) = as_controlnet_aux(one, between(70, 100)[None], 90)
    assert hint.shape == (1, 90, 129, 3)
    assert (pose.height, pose.width, pose.people) == (90, 129, (person,))


def test_batches_and_devices() -> None:
    image = torch.stack([between(40, 56, seed) for seed in range(3)])
    for name in ("Canny", "Tile", "TileSimple", "ColorGrid", "Scribble"):
        batch, _ = as_controlnet_aux(BY_ID[name], image, 70)
        singles = [as_controlnet_aux(BY_ID[name], frame[None], 70)[0] for frame in image]
        assert torch.equal(batch, torch.cat(singles))
    with pytest.raises(PreprocessorError, match="image: found pixels that are NaN"):
        as_controlnet_aux(CANNY, image * torch.nan, 64)
