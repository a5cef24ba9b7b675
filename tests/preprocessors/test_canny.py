"""Canny against OpenCV itself, called here the way its recipe says."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from control_composer.preprocessors import PreprocessorError, canny
from control_composer.preprocessors.batches import in_chunks
from control_composer.preprocessors.pixels import to_uint8
from control_composer.preprocessors.sizing import Size, resize, size_at

cv2 = pytest.importorskip("cv2")


def noise_u8(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Blobs with edges of every strength, so that both thresholds decide something."""
    small = np.random.default_rng(seed).integers(0, 256, (max(2, height // 6), max(2, width // 6), 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def as_image(*pictures: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures)).float() / 255.0


def expected(picture: np.ndarray, low: float, high: float, resolution: int = 0) -> np.ndarray:
    if resolution:
        k = resolution / min(picture.shape[:2])
        size = int(np.round(picture.shape[1] * k)), int(np.round(picture.shape[0] * k))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if k <= 1 else cv2.INTER_CUBIC)
    return cv2.Canny(picture, low, high)


def assert_same(hint: torch.Tensor, *edges: np.ndarray) -> None:
    assert hint.dtype == torch.float32
    assert hint.device.type == "cpu"
    for frame, edge in zip(hint, edges, strict=True):
        assert frame.shape == (*edge.shape, 3)
        assert np.array_equal(frame.numpy(), np.repeat(edge[..., None] / 255, 3, axis=-1).astype(np.float32))


@pytest.mark.parametrize("size", [(64, 64), (65, 99), (7, 5), (1, 1), (1, 40), (40, 1), (200, 30)])
@pytest.mark.parametrize("thresholds", [(100, 200), (20, 60), (0, 0), (255, 255), (200, 100)])
def test_bit_equal_to_opencv(size: tuple[int, int], thresholds: tuple[int, int]) -> None:
    picture = noise_u8(*size)
    assert_same(canny(as_image(picture), low=thresholds[0], high=thresholds[1]), expected(picture, *thresholds))


@pytest.mark.parametrize("resolution", [32, 50, 64, 96, 97, 150])
@pytest.mark.parametrize("size", [(96, 96), (97, 131), (131, 97), (60, 333)])
def test_resolution_sets_the_shorter_side(size: tuple[int, int], resolution: int) -> None:
    picture = noise_u8(*size)
    hint = canny(as_image(picture), low=50, high=120, resolution=resolution)
    assert min(hint.shape[1:3]) == resolution
    assert_same(hint, expected(picture, 50, 120, resolution))


@pytest.mark.parametrize("resolution", [0, 512])
def test_photographs(shared: Path, resolution: int) -> None:
    pictures = sorted((shared / "images").glob("*.png"))
    assert pictures
    for path in pictures:
        picture = cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        hint = canny(as_image(picture), resolution=resolution)
        assert 0.001 < hint.mean() < 0.5, f"{path.name}: no sensible edges"
        assert_same(hint, expected(picture, 100, 200, resolution))


def test_batch_is_the_stack_of_singles() -> None:
    pictures = [noise_u8(48, 80, seed) for seed in range(5)]
    batch = canny(as_image(*pictures), low=40, high=90, resolution=40)
    singles = torch.cat([canny(as_image(picture), low=40, high=90, resolution=40) for picture in pictures])
    assert torch.equal(batch, singles)
    assert len({frame.sum().item() for frame in batch}) > 1


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 8])
def test_chunks_give_the_whole_batch_and_tell_their_progress(frames: int) -> None:
    image = as_image(*(noise_u8(24, 32, seed) for seed in range(5)))
    told: list[int] = []
    assert torch.equal(in_chunks(canny, image, frames, told.append), canny(image))
    assert told == [*range(0, 5, frames), 5] if frames < 5 else told == [0, 5]


def test_an_interruption_ends_the_run_between_chunks() -> None:
    class Interrupted(Exception):
        pass

    seen = 0

    def count(image: torch.Tensor) -> torch.Tensor:
        nonlocal seen
        seen += len(image)
        return image

    def stop_after_two(done: int) -> None:
        if done >= 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        in_chunks(count, torch.zeros(6, 4, 4, 3), 1, stop_after_two)
    assert seen == 2


def test_the_strongest_channel_decides() -> None:
    """A red edge on a ground of the same brightness is an edge for OpenCV's colour Canny, and none in grey."""
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:, :16] = (255, 0, 0)
    picture[:, 16:] = (0, 130, 0)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    assert abs(int(grey[0, 0]) - int(grey[0, 31])) <= 1
    assert canny(as_image(picture)).sum() > 0


def test_eight_bit_pictures_come_back_exactly() -> None:
    every_value = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=-1)
    assert np.array_equal(to_uint8(torch.from_numpy(every_value[0]).float() / 255.0), every_value[0])
    assert np.array_equal(to_uint8(torch.tensor([[[-1.0, 0.5 / 255 + 1e-4, 2e9]]])), [[[0, 1, 255]]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types(dtype: torch.dtype) -> None:
    image = as_image(noise_u8(40, 40)).to(dtype)
    assert torch.equal(canny(image), canny(image.float()))


def test_non_contiguous_pictures_and_untouched_input() -> None:
    image = as_image(noise_u8(40, 56))
    turned = image.transpose(1, 2)
    before = image.clone()
    assert torch.equal(canny(turned), canny(turned.contiguous()))
    assert torch.equal(image, before)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            torch.zeros(1, 8, 8, 4),
            "image: found a picture with 4 channels (RGB with alpha), but 3 (RGB) were expected; "
            'composite it on a ground, or drop its alpha with the node "Split Image with Alpha", first.',
        ),
        (
            torch.zeros(1, 8, 8, 1),
            "image: found a picture with 1 channel, but 3 (RGB) were expected; "
            'turn a mask into a picture with the node "Convert Mask to Image" first.',
        ),
        (
            torch.full((1, 8, 8, 3), float("nan")),
            "image: found pixels that are NaN or infinite, but numbers from 0 to 1 were expected; "
            "look for the node that made them (often a VAE in fp16: decode in fp32).",
        ),
        (
            torch.zeros(0, 8, 8, 3),
            "image: found an empty batch of shape (0, 8, 8, 3), but at least one picture of at least one pixel was "
            "expected; check the node that is connected there.",
        ),
        (
            torch.zeros(8, 8),
            "image: found a torch.float32 tensor of shape (8, 8), but a float batch of pictures "
            "(batch, height, width, 3) was expected; connect an IMAGE output.",
        ),
    ],
    ids=["alpha", "one channel", "nan", "empty", "no batch"],
)
def test_refused_pictures(image: torch.Tensor, message: str) -> None:
    with pytest.raises(PreprocessorError) as refusal:
        canny(image)
    assert str(refusal.value) == message


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        (
            {"low": 300},
            "low: found 300, but a threshold from 0 to 255 was expected; the usual pair is low 100, high 200.",
        ),
        (
            {"high": float("nan")},
            "high: found nan, but a threshold from 0 to 255 was expected; the usual pair is low 100, high 200.",
        ),
        (
            {"resolution": -8},
            "resolution: found -8, but 0 (the picture's own size) or a number of pixels for the shorter side "
            "was expected; set it to 0 or more.",
        ),
    ],
)
def test_refused_parameters(settings_: dict[str, float], message: str) -> None:
    with pytest.raises(PreprocessorError) as refusal:
        canny(torch.zeros(1, 8, 8, 3), **settings_)
    assert str(refusal.value) == message


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 2048))
def test_size_at_keeps_the_aspect(height: int, width: int, resolution: int) -> None:
    size = size_at(Size(height, width), resolution)
    assert min(size) == resolution
    assert abs(max(size) - max(height, width) * resolution / min(height, width)) <= 0.5
    assert (size.height <= size.width) == (height <= width) or size.height == size.width
    assert size_at(Size(height, width), 0) == (height, width)


def test_halves_round_to_even_as_in_the_field() -> None:
    # 125 * 0.5 = 62.5 -> 62, 127 * 0.5 = 63.5 -> 64
    assert size_at(Size(100, 125), 50) == (50, 62)
    assert size_at(Size(100, 127), 50) == (50, 64)


def test_equal_size_is_not_resampled() -> None:
    picture = noise_u8(30, 40)
    assert resize(picture, Size(30, 40)) is picture
