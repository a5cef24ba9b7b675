"""Frames on several cores at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

pytest.importorskip("cv2")

from control_composer.preprocessors import PREPROCESSORS
from control_composer.preprocessors.frames import each_frame
from control_composer.tests.preprocessors.pictures import as_image, noise


@pytest.fixture
def cores() -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


def test_frames_are_computed_beside_each_other(cores: int) -> None:
    """No frame ends before as many as there are cores have begun."""
    together = threading.Barrier(cores, timeout=20)

    def recipe(picture: np.ndarray) -> np.ndarray:
        together.wait()
        return picture

    image = as_image(*(noise(8, 9, seed) for seed in range(2 * cores)))
    assert torch.equal(each_frame(image, 0, recipe), image)


def test_the_hints_are_those_of_one_core(cores: int) -> None:
    image = as_image(*(noise(40, 56, seed) for seed in range(7)))
    for preprocessor in PREPROCESSORS:
        if preprocessor.annotators:
            continue
        several = preprocessor(image)
        torch.set_num_threads(1)
        assert torch.equal(several, preprocessor(image)), preprocessor.id
        torch.set_num_threads(cores)


def test_what_a_recipe_raises_is_raised(cores: int) -> None:
    def recipe(picture: np.ndarray) -> np.ndarray:
        raise RuntimeError("no such picture")

    with pytest.raises(RuntimeError, match="no such picture"):
        each_frame(as_image(noise(8, 9), noise(8, 9, 1)), 0, recipe)
