"""The preprocessors without weights as they compute on an accelerator, here with tensors of the CPU, against what they make with OpenCV."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

pytest.importorskip("cv2")


from control_composer.benchmarks.memory import on_cpu as memory_on_cpu
from control_composer.preprocessors import (
    PREPROCESSORS,
    Preprocessor,
    PreprocessorError,
    canny_torch,
    frames,
    sizing,
    strokes,
)
from control_composer.tests.preprocessors.pictures import SIZES, as_image, noise, photographs
from control_composer.tests.preprocessors.test_recipes import BY_ID, RECIPES

CASES = {name: settings for name, (_, settings) in RECIPES.items()} | {"Canny": [{}, {"low": 20, "high": 60}]}
TO_THE_BIT = {"Canny", "Binary", "Threshold", "Scribble", "Invert", "ColorGrid", "Blur"} | {
    "RecolorLuminance",
    "RecolorIntensity",
}
"""Where OpenCV computes in whole numbers. The others may be one step of 255 off, in as few pixels as below."""
OFF = 1e-4
"""Share of numbers."""
WITHOUT_WEIGHTS = [BY_ID[name] for name in CASES]


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Tensor]]:
    """Calls a function as if its pictures were on an accelerator."""

    def call(function: Callable[..., Tensor], *arguments: Any, **settings: Any) -> Tensor:
        with monkeypatch.context() as patch:
            for module in (frames, sizing, strokes):
                patch.setattr(module, "on_cpu", lambda tensor: False)
            return function(*arguments, **settings)

    yield call


def compare(found: Tensor, expected: Tensor, to_the_bit: bool, off: float = OFF) -> None:
    assert found.dtype == torch.float32 and found.shape == expected.shape
    assert found.is_contiguous()
    steps = ((found - expected).abs() * 255).round()
    if to_the_bit:
        assert torch.equal(found, expected), f"{int((steps > 0).sum())} of {steps.numel()} by up to {steps.max()}"
    black_and_white = bool(((expected == 0) | (expected == 1)).all())
    assert black_and_white or float(steps.max()) <= 1
    # One number of a small picture is more than a share of it.
    assert int((steps > 0).sum()) <= max(3, off * steps.numel())


def test_every_preprocessor_without_weights_is_here() -> None:
    assert set(CASES) == {one.id for one in PREPROCESSORS if not one.annotators and one.id in {*RECIPES, "Canny"}}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", SIZES)
def test_the_same_as_on_the_cpu(name: str, size: tuple[int, int], on_device: Callable[..., Tensor]) -> None:
    for settings in CASES[name]:
        image = as_image(noise(*size, seed=len(name)))
        compare(on_device(BY_ID[name], image, **settings), BY_ID[name](image, **settings), name in TO_THE_BIT)


@pytest.mark.parametrize("name", CASES)
def test_photographs(name: str, shared: Path, on_device: Callable[..., Tensor]) -> None:
    for picture in photographs(shared)[:3]:
        image = as_image(picture)
        compare(on_device(BY_ID[name], image), BY_ID[name](image), name in TO_THE_BIT)


@pytest.mark.parametrize("name", CASES)
def test_made_smaller_first(name: str, on_device: Callable[..., Tensor]) -> None:
    for size, resolution in (((120, 80), 40), ((97, 131), 61)):
        image = as_image(noise(*size, seed=2))
        compare(
            on_device(BY_ID[name], image, resolution=resolution),
            BY_ID[name](image, resolution=resolution),
            name in TO_THE_BIT - {"Invert"},
        )


@pytest.mark.parametrize("name", ["Canny", "Blur", "Invert", "RecolorIntensity"])
def test_made_larger_first(name: str, on_device: Callable[..., Tensor]) -> None:
    """OpenCV has two ways to enlarge 8-bit pictures, and one pixel in twenty is one step apart in them."""
    image = as_image(noise(50, 70, seed=2))
    found, expected = on_device(BY_ID[name], image, resolution=90), BY_ID[name](image, resolution=90)
    apart = (found - expected).abs() * 255
    assert float((apart > 0.5).float().mean()) < 0.1
    assert name == "Canny" or float(apart.max()) <= 1.01


@pytest.mark.parametrize("name", ["RecolorIntensity", "Threshold", "Blur"])
def test_pictures_between_and_outside_of_8_bit_steps(name: str, on_device: Callable[..., Tensor]) -> None:
    image = torch.rand(1, 30, 40, 3, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.3
    compare(on_device(BY_ID[name], image), BY_ID[name](image), True)


@pytest.mark.parametrize("preprocessor", WITHOUT_WEIGHTS, ids=lambda one: one.id)
def test_a_batch_is_the_stack_of_singles_and_the_same_again(
    preprocessor: Preprocessor, on_device: Callable[..., Tensor]
) -> None:
    image = as_image(*(noise(40, 56, seed) for seed in range(4)))
    batch = on_device(preprocessor, image)
    assert torch.equal(batch, torch.cat([on_device(preprocessor, frame[None]) for frame in image]))
    assert torch.equal(batch, on_device(preprocessor, image))
    assert len({frame.sum().item() for frame in batch}) > 1


@pytest.mark.parametrize("preprocessor", WITHOUT_WEIGHTS, ids=lambda one: one.id)
def test_it_leaves_what_it_gets(preprocessor: Preprocessor, on_device: Callable[..., Tensor]) -> None:
    image = as_image(noise(40, 56))
    turned, before = image.transpose(1, 2), image.clone()
    assert torch.equal(on_device(preprocessor, turned), on_device(preprocessor, turned.contiguous()))
    assert torch.equal(image, before)
    half = image.to(torch.float16)
    assert torch.equal(on_device(preprocessor, half), on_device(preprocessor, half.float()))


@pytest.mark.parametrize("preprocessor", WITHOUT_WEIGHTS, ids=lambda one: one.id)
def test_refusals_are_the_same(preprocessor: Preprocessor, on_device: Callable[..., Tensor]) -> None:
    image = as_image(noise(16, 16))
    image[0, 3, 4, 1] = float("inf")
    for wrong in (image, torch.zeros(0, 8, 8, 3), torch.zeros(1, 8, 8, 2)):
        with pytest.raises(PreprocessorError) as there:
            on_device(preprocessor, wrong)
        with pytest.raises(PreprocessorError) as here:
            preprocessor(wrong)
        assert str(there.value) == str(here.value)


class Accelerator(FakeTensorMode):
    """Torch's make-believe tensors, which refuse to mix devices as a GPU does, and double precision, as some do."""

    def dispatch(self, *call: Any, **more: Any) -> Any:
        result = super().dispatch(*call, **more)
        assert all(not isinstance(leaf, Tensor) or leaf.dtype != torch.float64 for leaf in tree_leaves(result)), call
        return result


@pytest.mark.parametrize("name", CASES)
def test_nothing_of_the_cpu_meets_the_accelerator(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "check_picture", lambda image, what: None)
    monkeypatch.setattr("control_composer.preprocessors.invert.check_picture", lambda image, what: None)
    monkeypatch.setattr(canny_torch, "settled", lambda before, after: True)
    monkeypatch.setattr(canny_torch, "STEPS_PER_QUESTION", 1)
    monkeypatch.setattr("control_composer.preprocessors.pyramid_canny.SCALES", (0.5, 1.0))
    # What a histogram brings to the CPU has no value here.
    monkeypatch.setattr(
        "control_composer.preprocessors.binary.otsu_thresholds", lambda grey: torch.zeros(1, 1, 1, device=grey.device)
    )
    for resolution in (33, 90):
        for settings in CASES[name][:2]:
            with Accelerator(allow_non_fake_inputs=True):
                hint = BY_ID[name](torch.empty(2, 70, 50, 3, device="cuda:0"), resolution=resolution, **settings)
                assert hint.device.type == "cuda"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("name", CASES)
def test_on_a_gpu(name: str) -> None:
    for size in SIZES:
        for settings in CASES[name]:
            image = as_image(noise(*size, seed=len(name)), noise(*size, seed=3))
            hint = BY_ID[name](image.cuda(), **settings)
            assert hint.is_cuda
            compare(hint.cpu(), BY_ID[name](image, **settings), name in TO_THE_BIT)


@pytest.mark.parametrize("preprocessor", WITHOUT_WEIGHTS, ids=lambda one: one.id)
def test_memory_is_what_it_says(preprocessor: Preprocessor, on_device: Callable[..., Tensor]) -> None:
    for size, resolution in ((256, 0), (256, 250), (128, 256)):
        image = as_image(noise(size, size), noise(size, size, seed=1))
        hint, memory = memory_on_cpu(
            lambda image=image, resolution=resolution: on_device(preprocessor, image, resolution)
        )
        pixels = max(hint.numel(), image.numel()) // 3
        assert memory.peak <= 4 * pixels * preprocessor.values_per_pixel


def test_pictures_without_a_way_on_the_device_go_through_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "on_cpu", lambda tensor: False)
    image = as_image(noise(9, 8))
    hint = frames.each_frame(image, 0, lambda picture: 255 - picture)
    assert torch.equal(hint, 1 - image) or float((hint - (1 - image)).abs().max()) < 1e-6


def test_pictures_of_the_cpu_go_through_the_recipe() -> None:
    def refuse(picture: Tensor) -> Tensor:
        raise AssertionError("the recipe was there")

    hint = frames.each_frame(as_image(noise(9, 8)), 0, lambda picture: picture, refuse)
    assert torch.equal(hint, as_image(noise(9, 8)))


@pytest.mark.parametrize("values", [np.uint8, np.bool_, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_recipes_return(values: Any, channels: int, on_device: Callable[..., Tensor]) -> None:
    found = noise(9, 8) > 100 if values == np.bool_ else noise(9, 8)
    found = found.astype(np.float32) / 200 if values == np.float32 else found
    found = found if channels == 3 else found[..., 0]
    expected = torch.from_numpy(np.ascontiguousarray(found)).float() / (255 if values == np.uint8 else 1)
    expected = (expected if channels == 3 else expected.unsqueeze(-1).expand(-1, -1, 3)).unsqueeze(0)
    image = as_image(noise(9, 8))
    assert torch.equal(frames.each_frame(image, 0, lambda picture: found), expected)
    batched = torch.from_numpy(np.ascontiguousarray(found)).unsqueeze(0)
    assert torch.equal(
        on_device(frames.each_frame, image, 0, lambda picture: picture, lambda picture: batched), expected
    )
