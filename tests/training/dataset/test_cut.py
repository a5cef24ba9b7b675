"""Which part of a picture a row shows, and whether its hint shows the same."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from control_composer.preprocessors.sizing import Size
from control_composer.tests.training.dataset.files import noise, ramp
from control_composer.training.dataset.buckets import bucket_sizes, nearest
from control_composer.training.dataset.cut import Cut, cuts, mirrored
from control_composer.training.dataset.settings import DatasetSettings
from control_composer.training.errors import TrainingError

SQUARE = Size(64, 64)


def test_sizes_of_buckets() -> None:
    tall = [(640, 384), (576, 448)]
    assert bucket_sizes(512, 2.0) == (*tall, (512, 512), *((width, height) for height, width in reversed(tall)))
    assert bucket_sizes(512, 1.0) == ((512, 512),)
    assert bucket_sizes(64, 8.0) == ((64, 64),)


@pytest.mark.parametrize("resolution", [128, 512, 768, 1024])
def test_buckets_hold_what_memory_holds(resolution: int) -> None:
    for height, width in bucket_sizes(resolution, 4.0):
        assert height % 64 == width % 64 == 0
        assert height * width <= resolution**2
        assert max(height, width) <= 4 * min(height, width)


def test_the_nearest_bucket() -> None:
    sizes = bucket_sizes(512, 2.0)
    assert nearest(Size(3000, 4000), sizes) == (448, 576)
    assert nearest(Size(4000, 3000), sizes) == (576, 448)
    assert nearest(Size(99, 100), sizes) == (512, 512)
    assert nearest(Size(100, 10000), sizes) == (384, 640)


def test_the_centre_as_it_is() -> None:
    picture = noise(64, 100)
    (cut,) = cuts(Size(64, 100), SQUARE, "a", DatasetSettings())
    assert np.array_equal(cut.of_picture(Image.fromarray(picture)), picture[:, 18:82])


@pytest.mark.parametrize("size", [Size(1, 1), Size(3, 3000), Size(777, 333), Size(64, 64), Size(2000, 64)])
def test_parts_lie_inside_and_have_the_shape(size: Size) -> None:
    for target in bucket_sizes(512, 2.0):
        for cut in cuts(size, target, "a", DatasetSettings(crops=5, flip=True)):
            assert cut.top >= 0 and cut.top + cut.height <= size.height and cut.height >= 1
            assert cut.left >= 0 and cut.left + cut.width <= size.width and cut.width >= 1
            # A shape as of the target, but for whole pixels.
            assert abs(cut.height * target.width / target.height - cut.width) <= 1 + target.width / target.height


def test_random_parts() -> None:
    size, settings = Size(300, 400), DatasetSettings(crops=6)
    found = cuts(size, SQUARE, "a", settings)
    assert len(set(found)) == 6
    assert found[0] == Cut(0, 50, 300, 300, SQUARE)
    assert all(200 <= cut.height <= 300 for cut in found)
    assert found == cuts(size, SQUARE, "a", settings)
    for other in (
        cuts(size, SQUARE, "b", settings),
        cuts(size, SQUARE, "a", DatasetSettings(crops=6, seed=1)),
    ):
        assert other[0] == found[0] and not set(other[1:]) & set(found)
    assert cuts(size, SQUARE, "a", DatasetSettings(crops=3)) == found[:3]


def test_no_part_is_enlarged_for_being_another() -> None:
    assert len(cuts(SQUARE, SQUARE, "a", DatasetSettings(crops=9))) == 1
    assert len(cuts(Size(20, 20), SQUARE, "a", DatasetSettings(crops=9))) == 1
    wide = cuts(Size(32, 100), SQUARE, "a", DatasetSettings(crops=9))
    assert len(wide) > 1 and {cut.enlarged for cut in wide} == {2.0}
    assert all(cut.enlarged <= 1 for cut in cuts(Size(70, 80), SQUARE, "a", DatasetSettings(crops=9)))


def test_each_part_has_its_mirror_image() -> None:
    found = cuts(Size(300, 400), SQUARE, "a", DatasetSettings(crops=2, flip=True))
    assert [cut.flip for cut in found] == [False, True, False, True]
    picture = Image.fromarray(noise(300, 400))
    for plain, turned in zip(found[::2], found[1::2], strict=True):
        assert np.array_equal(turned.of_picture(picture), plain.of_picture(picture)[:, ::-1])


def test_fine_patterns_do_not_alias() -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    (cut,) = cuts(Size(256, 256), SQUARE, "a", DatasetSettings())
    shown = cut.of_picture(Image.fromarray(stripes))[4:-4, 4:-4].astype(int)
    assert np.abs(shown - 127.5).max() < 4


@pytest.mark.parametrize("scale", [0.5, 1, 2])
def test_a_hint_shows_the_same_part(scale: float) -> None:
    """The picture and its hint both say where each pixel came from."""
    size = Size(300, 400)
    picture, hint = Image.fromarray(ramp(*size)), ramp(round(300 * scale), round(400 * scale))
    for cut in cuts(size, SQUARE, "a", DatasetSettings(crops=4, flip=True)):
        shown = cut.of_picture(picture).astype(int)
        told = cut.of_hint(hint, size, "picture").astype(int)
        assert told.shape == shown.shape
        # Half a pixel of the smaller of the two, in steps of the ramp, and what rounds.
        assert np.abs(told - shown)[3:-3, 3:-3].max() <= 255 / (300 * min(scale, 1)) * 0.5 + 2


def test_lines_of_hints_stay_lines() -> None:
    hint = np.zeros((256, 256, 3), np.uint8)
    hint[:, 100] = 255
    (cut,) = cuts(Size(256, 256), SQUARE, "a", DatasetSettings())
    told = cut.of_hint(hint, Size(256, 256), "picture")
    assert set(np.unique(told)) == {0, 255}
    assert (told[..., 0].sum(axis=1) == 255).all()


def test_normals_are_mirrored_as_directions() -> None:
    normals = np.array([[[200, 10, 20], [0, 0, 0]]], np.uint8)
    assert np.array_equal(mirrored(normals, "normals"), [[[0, 0, 0], [55, 10, 20]]])
    assert np.array_equal(mirrored(normals, "picture"), [[[0, 0, 0], [200, 10, 20]]])
    turned = Cut(0, 0, 64, 64, SQUARE, flip=True)
    hint = noise(64, 64)
    assert np.array_equal(turned.of_hint(hint, SQUARE, "normals"), mirrored(hint, "normals"))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("resolution", 500, "a multiple of 64 from 64 to 8192"),
        ("resolution", 0, "a multiple of 64 from 64 to 8192"),
        ("widest", 0.9, "a number from 1 to 8"),
        ("widest", float("nan"), "a number from 1 to 8"),
        ("crops", 0, "a whole number from 1 to 1000"),
        ("seed", -1, "a whole number from 0 to below 2^63"),
        ("hint_kind", "poses", "picture or normals or pose or text"),
    ],
)
def test_settings_that_cannot_be(name: str, value: object, expected: str) -> None:
    with pytest.raises(TrainingError) as error:
        DatasetSettings(**{name: value})
    assert str(error.value) == f"The setting '{name}' is {value!r}, but {expected} was expected; change it."
