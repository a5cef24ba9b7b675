"""Files of all kinds become 8-bit RGB, upright; what is broken says so."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from control_composer.preprocessors.sizing import Size
from control_composer.tests.training.dataset.files import cut_off, noise, write
from control_composer.training.dataset.pictures import ORIENTATION, UnreadableError, check_picture, read_picture

# What the EXIF standard says of where the first row and column are.
UPRIGHT = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: np.rot90(p),
}


def read(source: object) -> np.ndarray:
    return np.asarray(read_picture(source))


@pytest.mark.parametrize("suffix", ["png", "webp"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_pictures_are_turned_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    picture = noise(6, 10)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / f"turned.{suffix}"
    Image.fromarray(picture).save(path, exif=exif, lossless=True)
    upright = UPRIGHT[orientation](picture)
    assert np.array_equal(read(path), upright)
    for whole in (False, True):
        assert check_picture(path, whole) == Size(*upright.shape[:2])


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    pixels = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 128]]], np.uint8)
    for name, image in {
        "rgba.png": Image.fromarray(pixels),
        "grey.png": Image.fromarray(pixels[..., [0, 3]]),
        "palette.png": Image.fromarray(pixels).quantize(),
    }.items():
        image.save(tmp_path / name)
    assert np.array_equal(read(tmp_path / "rgba.png"), [[[255, 0, 0], [255, 255, 255], [127, 127, 127]]])
    assert np.array_equal(read(tmp_path / "grey.png")[..., 0], [[255, 255, 127]])
    assert np.array_equal(read(tmp_path / "palette.png")[0, 1], [255, 255, 255])


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    import cv2

    grey = np.array([[0, 100 * 257, 200 * 257 + 100, 65535]], np.uint16)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(read(tmp_path / "grey.png"), np.repeat([[[0], [100], [200], [255]]], 3, axis=2))
    cv2.imwrite(str(tmp_path / "colour.png"), np.stack([grey, 0 * grey, 65535 - grey], axis=2))
    assert np.abs(read(tmp_path / "colour.png").astype(int)[0, :, 2] - [0, 100, 200, 255]).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_other_modes(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGB", (5, 4), "white").convert(mode)
    image.save(tmp_path / "picture.tif")
    assert np.array_equal(read(tmp_path / "picture.tif"), np.full((4, 5, 3), 255))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif"])
def test_a_file_cut_off_is_found_by_reading_it_all(tmp_path: Path, suffix: str) -> None:
    path = cut_off(write(tmp_path / f"picture.{suffix}", noise(80, 96)))
    assert suffix == "webp" or check_picture(path, whole=False) == Size(80, 96)
    for looked in (lambda: check_picture(path, whole=True), lambda: read_picture(path)):
        with pytest.raises(UnreadableError, match=r"^(cannot be read \(.+\)|is no picture file that can be read)$"):
            looked()


def test_a_large_photograph_is_whole(tmp_path: Path) -> None:
    """It is checked at an eighth of its size, and that must not be taken for the size."""
    path = write(tmp_path / "picture.jpg", noise(801, 1203))
    assert check_picture(path, whole=True) == Size(801, 1203)


def test_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").touch()
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tif")
    for name, said in {
        "text.png": "is no picture file that can be read",
        "empty.png": "is no picture file that can be read",
        "absent.png": "is not there",
        "float.tif": "has floating-point pixels, of which nothing says what is white; save it with 8 or 16 bits",
    }.items():
        with pytest.raises(UnreadableError) as error:
            read_picture(tmp_path / name)
        assert str(error.value) == said


def test_tensors() -> None:
    picture = torch.tensor([[[1.0, 0.0, 0.5]]])
    assert np.array_equal(read(picture.half()), [[[255, 0, 128]]])
    assert np.array_equal(read(picture[..., 2:]), [[[128, 128, 128]]])
    assert np.array_equal(read(torch.cat([picture, torch.zeros(1, 1, 1)], dim=2)), [[[255, 255, 255]]])
    assert check_picture(torch.zeros(3, 5, 3), whole=True) == Size(3, 5)
    for wrong, said in {
        "has pixels that are NaN or infinite": picture * torch.nan,
        "is a torch.float32 tensor of shape (1, 1, 2), which is no picture": picture[..., :2],
        "is a torch.uint8 tensor of shape (1, 1, 3), which is no picture": picture.byte(),
    }.items():
        with pytest.raises(UnreadableError) as error:
            check_picture(said, whole=False)
        assert str(error.value) == wrong


class InAShard:
    stamp = "a shard"

    def __init__(self, content: bytes) -> None:
        self.read = lambda: content


def test_files_in_files() -> None:
    content = io.BytesIO()
    Image.fromarray(noise(4, 6)).save(content, "PNG")
    stored = InAShard(content.getvalue())
    assert np.array_equal(read(stored), noise(4, 6))
    assert check_picture(stored, whole=True) == Size(4, 6)
    with pytest.raises(UnreadableError, match="cannot be read"):
        read_picture(InAShard(content.getvalue()[:60]))
