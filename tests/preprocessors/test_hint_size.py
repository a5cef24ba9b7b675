"""Pixel perfect resolutions against the published formula."""

import itertools

import numpy as np
import pytest

from control_composer.control.placing import SIZINGS
from control_composer.preprocessors.errors import PreprocessorError
from control_composer.preprocessors.hint_size import MODES, pixel_perfect
from control_composer.preprocessors.sizing import Size, size_at

SIDES = (1, 7, 63, 512, 513, 1000, 2000)


def test_the_modes_are_those_of_layers() -> None:
    assert MODES == SIZINGS


@pytest.mark.parametrize("mode", MODES)
def test_the_formula(mode: str) -> None:
    """sd-webui-controlnet: the smaller factor for Resize and Fill, else the larger, times the shorter side, rounded half to even."""
    for height, width, h, w in itertools.product(SIDES, SIDES, (512, 768, 1), (512, 1216)):
        k0, k1 = float(h) / float(height), float(w) / float(width)
        estimation = (min(k0, k1) if mode == "fit" else max(k0, k1)) * float(min(height, width))
        assert pixel_perfect(Size(height, width), Size(h, w), mode) == max(1, int(np.round(estimation)))


@pytest.mark.parametrize("mode", MODES)
def test_a_hint_at_that_resolution_has_its_place_on_the_canvas(mode: str) -> None:
    size, target = Size(480, 640), Size(1024, 768)
    found = size_at(size, pixel_perfect(size, target, mode))
    assert found == (Size(576, 768) if mode == "fit" else Size(1024, 1365))


def test_what_it_cannot_be_asked() -> None:
    with pytest.raises(PreprocessorError) as refused:
        pixel_perfect(Size(4, 4), Size(0, 512), "crop")
    assert str(refused.value) == "canvas: found 512×0 pixels, but at least 1×1 was expected; set its width and height."
    with pytest.raises(PreprocessorError) as refused:
        pixel_perfect(Size(4, 4), Size(4, 4), "Just Resize")  # type: ignore[arg-type]
    assert str(refused.value) == (
        'mode: found "Just Resize", but one of crop, fit, stretch was expected; choose one of them.'
    )
