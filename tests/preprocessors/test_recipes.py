"""The preprocessors without weights against their recipes as they are published, with OpenCV and numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cv2")

from control_composer.benchmarks import recipes
from control_composer.preprocessors import PREPROCESSORS
from control_composer.tests.preprocessors.pictures import SIZES, as_image, noise, photographs

RECIPES: dict[str, tuple[recipes.Recipe, list[dict[str, Any]]]] = {
    "Binary": (recipes.binary, [{}, {"threshold": 0}, {"threshold": 255}, {"threshold": 180}]),
    "Threshold": (recipes.threshold, [{}, {"level": 60}]),
    "Invert": (recipes.invert, [{}]),
    "Scribble": (recipes.scribble, [{}]),
    "XDoG": (recipes.xdog, [{}, {"threshold": 5}]),
    "LineartStandard": (recipes.lineart_standard, [{}, {"sigma": 2.0, "intensity_threshold": 3}]),
    "PyramidCanny": (recipes.pyramid_canny, [{}, {"low": 20, "high": 60}]),
    "ColorGrid": (recipes.colour_grid, [{}, {"cell": 9}]),
    "Shuffle": (recipes.shuffle, [{}, {"seed": 7}]),
    "Tile": (recipes.tile, [{}, {"halvings": 1}]),
    "TileSimple": (recipes.tile_simple, [{}, {"scale": 2.5, "blur": 5.0}]),
    "Blur": (recipes.blur, [{}, {"sigma": 1.5}]),
    "RecolorLuminance": (recipes.luminance, [{}, {"channels": "corrected"}, {"gamma": 0.6}]),
    "RecolorIntensity": (recipes.intensity, [{}, {"gamma": 1.7}]),
}
BY_ID = {preprocessor.id: preprocessor for preprocessor in PREPROCESSORS}


def check(name: str, picture: np.ndarray, settings: dict[str, Any]) -> None:
    expected = RECIPES[name][0](picture, **settings).astype(np.float32) / 255
    if expected.ndim == 2:
        expected = np.repeat(expected[..., None], 3, axis=2)
    found = BY_ID[name](as_image(picture), **settings)[0].numpy()
    assert found.shape == picture.shape
    # Both sides divide 8-bit numbers by 255: half a step of 255 would be another number.
    assert np.abs(found - expected).max() <= 1e-6


def test_every_preprocessor_without_weights_has_its_recipe() -> None:
    elsewhere = {"Canny", "TileGuided", "DepthNormalised", "NormalFromDepth"}
    assert set(RECIPES) | elsewhere == {one.id for one in PREPROCESSORS if not one.annotators}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("size", SIZES)
def test_the_recipe(name: str, size: tuple[int, int]) -> None:
    for settings in RECIPES[name][1]:
        check(name, noise(*size, seed=len(name)), settings)


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_on_photographs(name: str, shared: Path) -> None:
    for picture in photographs(shared):
        check(name, picture, {})


@pytest.mark.parametrize("name", RECIPES)
def test_settings_matter(name: str) -> None:
    picture = as_image(noise(96, 130))
    found = [BY_ID[name](picture, **settings) for settings in RECIPES[name][1]]
    assert all((one != found[0]).any() for one in found[1:])
