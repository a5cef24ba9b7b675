"""Hints are made once, and kept whole."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from control_composer.tests.training.dataset.files import noise
from control_composer.training.dataset.hints import Condition, Hints
from control_composer.training.errors import TrainingError


class Counting:
    """Inverts pictures, and counts how many."""

    def __init__(self, scale: int = 1) -> None:
        self.calls = 0
        self.scale = scale

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        assert image.shape == (1, 64, 128, 3) and image.dtype == torch.float32
        return 1 - image[:, :: self.scale, :: self.scale]


def test_made_once_for_the_same_pixels(tmp_path: Path) -> None:
    invert = Counting()
    for _ in range(2):
        hints = Hints(Condition("Invert", invert), tmp_path)
        assert np.array_equal(hints.of(noise(64, 128)), 255 - noise(64, 128))
    assert invert.calls == 1
    assert np.array_equal(hints.of(noise(64, 128, seed=1)), 255 - noise(64, 128, seed=1))
    assert invert.calls == 2
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("Invert-")
    assert [file.suffix for file in folder.rglob("*.*")] == [".png", ".png"]


def test_other_settings_are_other_hints(tmp_path: Path) -> None:
    invert = Counting()
    for parameters in ({"low": 1}, {"low": 2}):
        Hints(Condition("Invert", invert, parameters), tmp_path).of(noise(64, 128))
    assert invert.calls == 2


def test_a_spoilt_file_is_made_anew(tmp_path: Path) -> None:
    invert = Counting()
    hints = Hints(Condition("Invert", invert), tmp_path)
    hints.of(noise(64, 128))
    (file,) = tmp_path.rglob("*.png")
    whole = file.read_bytes()
    other = io.BytesIO()
    Image.fromarray(noise(64, 120)).save(other, "PNG")
    for broken in (b"", whole[: len(whole) // 2], other.getvalue()):
        file.write_bytes(broken)
        assert np.array_equal(hints.of(noise(64, 128)), 255 - noise(64, 128))
        assert file.read_bytes() == whole
    assert invert.calls == 4


def test_nothing_is_kept_without_a_folder() -> None:
    invert = Counting()
    hints = Hints(Condition("Invert", invert), None)
    hints.of(noise(64, 128))
    hints.of(noise(64, 128))
    assert invert.calls == 2


def test_a_hint_of_another_size_is_brought_to_the_picture_s() -> None:
    flat = np.full((64, 128, 3), 55, np.uint8)
    found = Hints(Condition("Invert", Counting(scale=2)), None).of(flat)
    assert np.array_equal(found, np.full((64, 128, 3), 200))


def test_a_hint_that_cannot_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    hints = Hints(Condition("Invert", Counting()), tmp_path / "file")
    with pytest.raises(TrainingError) as error:
        hints.of(np.zeros((64, 128, 3), np.uint8))
    assert error.value.subject.startswith("A hint of ")
    assert "could not be written to" in str(error.value)
    assert str(error.value).endswith(
        ", but room and permission for it were expected; free some room and start again; "
        "hints that are there already are not made again."
    )
