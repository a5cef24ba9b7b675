"""Depth beside the image processors, models and post-processing of transformers, on the same random weights."""

from __future__ import annotations

import copy
import inspect
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("cv2")
pytest.importorskip("transformers")

import cv2

from control_composer.preprocessors import PreprocessorError, depth_anything, depth_pro, midas, midas_normal, zoe_depth
from control_composer.preprocessors.annotators import BY_ID
from control_composer.preprocessors.annotators.depth import DEPTHS
from control_composer.preprocessors.looking import SQUARES, fitted_size, largest_size
from control_composer.preprocessors.nearness import between, quantiles, spread
from control_composer.preprocessors.networks.network import Network
from control_composer.preprocessors.sizing import Size
from control_composer.tests.preprocessors.annotator_weights import random_network
from control_composer.tests.preprocessors.pictures import as_image, noise

TOLERANCE = 1e-4
SMALL, INDOOR = "Depth-Anything-V2-Small", "Depth-Anything-V2-Metric-Indoor-Small"


def near(found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> bool:
    """To a part of what is the largest."""
    return found.shape == expected.shape and float((found - expected).abs().max() / expected.abs().max()) < tolerance


def dpt_processor(side: int, multiple: int, statistics: Any) -> Any:
    from transformers import DPTImageProcessor

    return DPTImageProcessor(
        size={"height": side, "width": side},
        ensure_multiple_of=multiple,
        keep_aspect_ratio=multiple > 1,
        image_mean=statistics[0],
        image_std=statistics[1],
    )


def zoe_processor(side: int) -> Any:
    from transformers import ZoeDepthImageProcessor

    return ZoeDepthImageProcessor(size={"height": side, "width": side * 4 // 3}, ensure_multiple_of=32)


def depth_pro_processor(side: int) -> Any:
    from transformers import DepthProImageProcessor

    return DepthProImageProcessor(size={"height": side, "width": side})


def by_transformers(processor: Any, module: nn.Module, picture: Tensor) -> Tensor:
    """What the library's depth pipeline calls predicted_depth, of one picture: (H, W, 3) float 0..1."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        seen = processor(images=picture.movedim(-1, 0), do_rescale=False, return_tensors="pt")
        found = processor.post_process_depth_estimation(module(**seen), [tuple(picture.shape[:2])])
    depth: Tensor = found[0]["predicted_depth"]
    return depth


def ours(name: str, image: Tensor, network: Network | None = None) -> tuple[Tensor, Any]:
    """The depth before it is made a hint, and the library's processor for it."""
    network = network or random_network(name)
    if name.startswith("Depth-Anything"):
        statistics = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        return depth_anything.predicted(image, network, name, 126, 0), dpt_processor(126, 14, statistics)
    if name.startswith("DPT"):
        return midas.midas_depth(image, network, name, 0), dpt_processor(64, 1, ([0.5] * 3, [0.5] * 3))
    if name.startswith("Zoe"):
        return zoe_depth.zoe_metres(image, network, name, 96), zoe_processor(96)
    return depth_pro.depth_pro_metres(image, network, 0), depth_pro_processor(128)


NAMES = (SMALL, INDOOR, *midas.NETWORKS, *zoe_depth.NETWORKS, "DepthPro")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(126, 126), (90, 151), (310, 97), (40, 33)])
def test_the_depths_are_those_of_transformers(name: str, size: tuple[int, int]) -> None:
    # Within 0.2..0.8, since the library lets cubic resizing go beyond black and white where pictures are no 8-bit ones.
    image = as_image(noise(*size, 3)) * 0.6 + 0.2
    found, processor = ours(name, image)
    assert near(found[0], by_transformers(processor, random_network(name).module, image[0]))


@pytest.mark.parametrize(
    ("name", "levels"), [(SMALL, 2.0), ("DPT-Large", 2.0), ("ZoeDepth-NYU", 0.01), ("DepthPro", 0.01)]
)
def test_of_an_8_bit_picture_networks_see_what_the_library_shows_them(name: str, levels: float) -> None:
    """But for rounding where the library resizes in 8 bits, once for the rows and once for the columns."""
    picture, seen = noise(90, 151, 3), []
    settings = random_network(name).module.config

    def look(grey: Tensor) -> Any:
        return depth(grey + 1)

    network = Network(Told(look), torch.device("cpu"), torch.float32)
    network.module.config = settings
    network.module.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    _, processor = ours(name, as_image(picture), network)
    shown = processor(images=torch.from_numpy(picture).movedim(-1, 0), return_tensors="pt")["pixel_values"]
    deviation = torch.tensor(processor.image_std).reshape(1, 3, 1, 1)
    assert seen[0].shape == shown.shape
    difference = ((seen[0] - shown) * deviation * 255).abs()
    assert float(difference.max()) < levels and float(difference.mean()) < levels / 4


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_the_stack_of_singles(name: str) -> None:
    image = as_image(noise(40, 33, 3), noise(40, 33, 4), noise(40, 33, 5))
    batch, _ = ours(name, image)
    for frame, alone in zip(batch, image, strict=True):
        assert near(frame, ours(name, alone[None])[0][0], 1e-5)


def test_the_network_with_two_heads_answers_each_frame_by_the_head_of_its_own() -> None:
    """The library lets a batch vote."""
    network = random_network("ZoeDepth-NYU-KITTI")
    images = as_image(*(noise(40, 33, seed) for seed in range(6)))
    with torch.no_grad():
        whole = zoe_depth.zoe_metres(images, network, "", 96)
    logits: list[Tensor] = []

    def keep(module: nn.Module, given: Any, found: Tensor) -> None:
        logits.append(found)

    handle = network.module.metric_head.mlp_classifier.register_forward_hook(keep)
    alone = [zoe_depth.zoe_metres(image[None], network, "", 96)[0] for image in images]
    handle.remove()
    assert torch.equal(whole, torch.stack(alone))
    assert len(logits) == len(images)


class Told(nn.Module):
    """A network that answers with the grey of what it sees."""

    def __init__(self, answer: Any, **config: Any):
        super().__init__()
        self.answer, self.config = answer, SimpleNamespace(**config)

    def forward(self, picture: Tensor) -> Any:
        return self.answer(picture.mean(1))


def telling(answer: Any, **config: Any) -> Network:
    return Network(Told(answer, **config), torch.device("cpu"), torch.float32)


def ramp() -> Tensor:
    """From black at the left to white at the right."""
    return torch.linspace(0, 1, 64).reshape(1, 1, 64, 1).repeat(1, 48, 1, 3)


def depth(value: Tensor) -> Any:
    return SimpleNamespace(predicted_depth=value, field_of_view=None)


NEARER_RIGHT = {
    "relative": (depth_anything.depth_anything, "Depth-Anything-V1-Base", lambda grey: depth(grey + 5), {}),
    "metres": (
        depth_anything.depth_anything,
        "Depth-Anything-V2-Metric-Outdoor-Large",
        lambda grey: depth(10 - 3 * grey),
        {},
    ),
    "midas": (midas.midas, "DPT-Large", lambda grey: depth(900 * grey + 3000), {"image_size": 64}),
    "zoe": (zoe_depth.zoe_depth, "ZoeDepth-NYU", lambda grey: depth(10 - 3 * grey), {"bin_configurations": [1]}),
    "zoe voting": (
        zoe_depth.zoe_depth,
        "ZoeDepth-NYU-KITTI",
        lambda grey: depth(10 - 3 * grey),
        {"bin_configurations": [1, 2]},
    ),
    "pro": (
        depth_pro.depth_pro,
        "DepthPro",
        lambda grey: depth(grey + 3),
        {"patch_size": 16, "scaled_images_ratios": [0.25, 1]},
    ),
}


@pytest.mark.parametrize("case", NEARER_RIGHT)
def test_near_is_white(case: str) -> None:
    function, name, answer, config = NEARER_RIGHT[case]
    chosen = {} if name == "DepthPro" else {"network": name}
    hint = function(ramp(), networks={name: telling(answer, **config)}, **chosen)
    row = hint[0, 24, :, 0]
    assert float(row[0]) < 0.02 and float(row[-1]) > 0.98
    assert bool((row.diff() > -1e-4).all())
    upside = function(1 - ramp(), networks={name: telling(answer, **config)}, **chosen)
    assert float((upside.flip(2) - hint).abs().max()) < 1e-3


@pytest.mark.parametrize("seed", [3, 4])
def test_normals_are_those_of_the_recipe(seed: int) -> None:
    """ControlNet 1.0's (lllyasviel, annotator/midas), with OpenCV, from the depth in its own numbers."""
    image = as_image(noise(60, 90, seed))
    network = random_network("DPT-Large")
    raw = 400 * midas.midas_depth(image, network, "", 0)[0].double().numpy()
    near = (raw - raw.min()) / np.ptp(raw)
    x, y = cv2.Sobel(raw, cv2.CV_64F, 1, 0, ksize=3), cv2.Sobel(raw, cv2.CV_64F, 0, 1, ksize=3)
    x[near < 0.3], y[near < 0.3] = 0, 0
    normal = np.stack([np.full_like(x, 6.0), y, x], axis=2)
    expected = normal / np.linalg.norm(normal, axis=2, keepdims=True) * 0.5 + 0.5

    def louder(picture: Tensor) -> Any:
        return depth(400 * network(picture).predicted_depth)

    loud = Network(Told(lambda grey: None, image_size=64), torch.device("cpu"), torch.float32)
    loud.module.forward = louder
    found = midas_normal.midas_normal(image, networks={"DPT-Large": loud}, network="DPT-Large", a=6.0, background=0.3)
    assert np.abs(found[0].numpy() - expected).max() < TOLERANCE
    assert found.std() > 0.05


def test_metres_become_one_over_metres() -> None:
    metres = torch.tensor([[[1.0, 2.0], [4.0, 400.0]]])
    network = telling(lambda grey: depth(metres.repeat_interleave(7, 1).repeat_interleave(7, 2)))
    image = torch.rand(1, 14, 14, 3)
    hint = depth_anything.depth_anything(image, networks={INDOOR: network}, network=INDOOR, inference_size=14)
    inverse = 1 / torch.tensor([1.0, 2.0, 4.0, 250.0])
    expected = (inverse - inverse[3]) / (inverse[0] - inverse[3])
    assert torch.allclose(hint[0, ::7, ::7, 0].flatten(), expected, atol=1e-6)


def test_zoe_is_stretched_between_its_percentiles() -> None:
    values = torch.rand(2, 31, 44) * 80
    near_far = quantiles(values, 0.02, 0.85)
    for found, fraction in zip(near_far, (0.02, 0.85), strict=True):
        assert np.allclose(found, np.quantile(values.flatten(1).numpy(), fraction, axis=1), rtol=1e-5)
    stretched = between(values, near_far[1], near_far[0])
    expected = 1 - (values - near_far[0][:, None, None]) / (near_far[1] - near_far[0])[:, None, None]
    assert torch.allclose(stretched, expected.clamp(0, 1), atol=1e-5)
    assert float((stretched == 1).float().mean()) == pytest.approx(0.02, abs=0.01)


@pytest.mark.parametrize("level", [0.0, 7.0, 3000.0])
def test_flat_depths_are_black(level: float) -> None:
    flat = torch.full((2, 5, 4), level)
    flat[1, 2, 2] *= 1 + 1e-7
    assert torch.equal(spread(flat), torch.zeros(2, 5, 4))


def test_frames_are_stretched_alone() -> None:
    ramps = torch.linspace(0, 1, 12).reshape(1, 3, 4) * torch.tensor([1.0, 50.0]).reshape(2, 1, 1)
    assert torch.allclose(spread(ramps + 9), torch.linspace(0, 1, 12).reshape(1, 3, 4).repeat(2, 1, 1), atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (2000, 30), (30, 2000), (518, 518), (480, 640), (1080, 1920)])
def test_the_size_looked_at_is_that_of_the_processor(size: tuple[int, int]) -> None:
    from transformers.models.dpt.image_processing_dpt import get_resize_output_image_size

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = get_resize_output_image_size(torch.empty(3, *size), (518, 518), True, 14)
    assert fitted_size(Size(*size), Size(518, 518), 14) == (expected.height, expected.width)


@pytest.mark.parametrize("size", [(2000, 300), (518, 100_000), (3, 1_000_000), (100_000, 519), (1, 40)])
def test_long_pictures_are_looked_at_in_bounded_memory(size: tuple[int, int]) -> None:
    found = fitted_size(Size(*size), Size(518, 518), 14)
    assert found.height % 14 == 0 and found.width % 14 == 0 and min(found) >= 14
    assert found.height * found.width <= SQUARES * 518 * 518
    most = largest_size(Size(*size), Size(518, 518), 14)
    assert most.height * most.width <= SQUARES * 518 * 518
    assert most.height * most.width >= 0.9 * found.height * found.width


def test_what_a_network_sees_is_what_memory_is_set_aside_for() -> None:
    seen: list[tuple[int, ...]] = []

    def answer(grey: Tensor) -> Any:
        seen.append(tuple(grey.shape[1:]))
        return depth(grey + 1)

    image = torch.rand(1, 300, 410, 3)
    networks = {SMALL: telling(answer), "ZoeDepth-NYU": telling(answer, bin_configurations=[1])}
    networks["DPT-Large"] = telling(answer, image_size=384)
    networks["DepthPro"] = telling(answer, patch_size=384, scaled_images_ratios=[0.25, 0.5, 1])
    for preprocessor, chosen in (
        (depth_anything.DEPTH_ANYTHING, {"network": SMALL, "inference_size": 700}),
        (zoe_depth.ZOE_DEPTH, {"network": "ZoeDepth-NYU"}),
        (midas.MIDAS, {"network": "DPT-Large"}),
        (depth_pro.DEPTH_PRO, {}),
    ):
        preprocessor(image, networks=networks, **chosen)
        stated = preprocessor.network_size(Size(300, 410), 0, chosen)
        assert 1 <= stated.height * stated.width / (seen[-1][0] * seen[-1][1]) < 2.2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", [one for one in NAMES if BY_ID[one].half])
def test_half_precision_goes_through(name: str, dtype: torch.dtype) -> None:
    """The library's code makes tensors of its own on the way; what comes out is float32 again."""
    whole = random_network(name)
    half = Network(copy.deepcopy(whole.module).to(dtype), whole.device, dtype)
    image = as_image(noise(40, 33, 3))
    found = ours(name, image, half)[0]
    assert found.dtype == torch.float32 and near(found, ours(name, image)[0], 0.2)


def test_numbers_that_are_none_are_refused() -> None:
    network = telling(lambda grey: depth(grey / 0))
    with pytest.raises(PreprocessorError) as refusal:
        depth_anything.depth_anything(ramp(), networks={SMALL: network}, inference_size=56)
    assert str(refusal.value) == (
        f"{SMALL}: found depths that are NaN or infinite, but numbers were expected; start ComfyUI with --fp32-unet, or download the "
        "network's files anew."
    )


def test_every_network_can_be_chosen_and_the_defaults_are_the_functions_own() -> None:
    chosen = {
        one
        for preprocessor in (
            depth_anything.DEPTH_ANYTHING,
            midas.MIDAS,
            midas_normal.MIDAS_NORMAL,
            zoe_depth.ZOE_DEPTH,
            depth_pro.DEPTH_PRO,
        )
        for one in preprocessor.annotators
    }
    assert chosen == {one.id for one in DEPTHS}
    for preprocessor in (depth_anything.DEPTH_ANYTHING, midas.MIDAS, midas_normal.MIDAS_NORMAL, zoe_depth.ZOE_DEPTH):
        signature = inspect.signature(preprocessor.function).parameters
        for parameter in preprocessor.parameters:
            assert signature[parameter.id].default == parameter.default
