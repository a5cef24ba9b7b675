"""Segment Anything against transformers' mask generation, on random weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")

import transformers

from control_composer.preprocessors import PreprocessorError
from control_composer.preprocessors.annotators.segmentation import SAMS
from control_composer.preprocessors.looking import IMAGENET, resampled, standardised
from control_composer.preprocessors.networks.network import Network
from control_composer.preprocessors.sam import Masks, Scale, found, grid, kept, painted, sam
from control_composer.preprocessors.segment_colours import seeded_colours
from control_composer.preprocessors.sizing import Size
from control_composer.tests.preprocessors.pictures import as_image, noise
from control_composer.tests.preprocessors.weights_segmentation import WRITTEN

NAME = "sam-vit-base"
SIDE = 64


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    folder = tmp_path_factory.mktemp("sam") / NAME
    WRITTEN[NAME](folder)
    (annotator,) = (one for one in SAMS if one.id == NAME)
    return Network(annotator.build(folder), torch.device("cpu"), torch.float32)


def ours(network: Network, picture: np.ndarray, per_side: int) -> Masks:
    size = Size(*picture.shape[:2])
    seen = network.module.sight.size_of(size)  # type: ignore[union-attr, operator]
    image = resampled(as_image(picture).movedim(-1, 1), seen, "bilinear", antialias=True)
    square = torch.zeros(1, 3, SIDE, SIDE)
    square[..., : seen.height, : seen.width] = standardised(image, IMAGENET)
    return kept(found(network, network(picture=square), grid(per_side, seen), Scale(SIDE, seen, size)))


def library_processor() -> Any:
    return transformers.SamImageProcessor(size={"longest_edge": SIDE}, pad_size={"height": SIDE, "width": SIDE})


def generated(network: Network, picture: np.ndarray, per_side: int) -> tuple[Tensor, Tensor]:
    """The library's masks (n, H, W) and how good each is."""
    from PIL import Image

    generator = transformers.pipeline(
        "mask-generation",
        model=network.module.network,  # type: ignore[arg-type]
        image_processor=library_processor(),
        device="cpu",
    )
    made: Any = generator(Image.fromarray(picture), points_per_crop=per_side, points_per_batch=50)
    return torch.stack([torch.as_tensor(mask) for mask in made["masks"]]), torch.as_tensor(made["scores"])


def generated_in_floats(network: Network, picture: np.ndarray, per_side: int) -> tuple[Tensor, Tensor]:
    """The same by the parts of the library that its generator puts together, which rounds what the network sees to 8 bits."""
    processor, size, model = library_processor(), picture.shape[:2], network.module.network
    floats = torch.from_numpy(picture).movedim(-1, 0).float()
    boxes, points, _, _ = processor.generate_crop_boxes(floats, SIDE, points_per_crop=per_side)
    inputs = processor([floats], return_tensors="pt")
    with torch.no_grad():
        features = model.get_image_embeddings(inputs["pixel_values"])  # type: ignore[union-attr, operator]
        made = model(image_embeddings=features, input_points=points)  # type: ignore[operator]
    full = processor.post_process_masks(
        made["pred_masks"], inputs["original_sizes"], inputs["reshaped_input_sizes"], binarize=False
    )
    masks, quality, places = processor.filter_masks(full[0], made["iou_scores"][0], size, boxes[0])
    masks, quality, _, _ = processor.post_process_for_mask_generation(masks, quality, places, 0.7)
    return torch.stack([torch.as_tensor(mask) for mask in masks]), quality


@pytest.mark.parametrize(
    ("size", "library"),
    [
        ((64, 64), generated),
        ((48, 64), generated),
        ((64, 21), generated),
        ((90, 120), generated_in_floats),
        ((31, 17), generated_in_floats),
        ((400, 70), generated_in_floats),
    ],
)
def test_the_library_finds_the_same_masks(size: tuple[int, int], library: Any, network: Network) -> None:
    picture = noise(*size)
    masks, quality = library(network, picture, 9)
    assert len(masks) > 1
    mine = ours(network, picture, 9)
    scale = Scale(SIDE, network.module.sight.size_of(Size(*size)), Size(*size))  # type: ignore[union-attr, operator]
    full = torch.cat(list(scale.enlarged(mine.logits))) > 0
    assert len(full) == len(masks)
    # The library gives the best first, we the largest. Sharp random attention makes much of the last digit of a number.
    order = mine.quality.argsort(descending=True)
    assert torch.allclose(mine.quality[order], quality, rtol=1e-3)
    assert (full[order] != masks).float().mean() < 1e-3
    assert mine.areas.tolist() == sorted(mine.areas.tolist(), reverse=True)
    assert torch.equal(mine.areas, full.flatten(1).sum(1))


def test_areas_in_colours_of_the_seed(network: Network) -> None:
    image, networks = as_image(noise(48, 64), noise(48, 64, 1)), {NAME: network}
    hint = sam(image, networks=networks, points_per_side=6)
    again = sam(image, networks=networks, points_per_side=6)
    assert torch.equal(hint, again) and hint.shape == (2, 48, 64, 3) and hint.dtype == torch.float32
    assert torch.equal(hint[1:], sam(image[1:], networks=networks, points_per_side=6))
    other = sam(image, networks=networks, points_per_side=6, seed=5)
    assert not torch.equal(hint, other)
    # The same areas in other colours.
    assert torch.equal((hint == 0).all(-1), (other == 0).all(-1))
    used = {tuple(colour) for colour in hint[0].reshape(-1, 3).tolist()} - {(0.0, 0.0, 0.0)}
    assert len(used) > 2 and used <= {tuple(colour) for colour in seeded_colours(200, 0).tolist()}
    assert sam(image, networks=networks, points_per_side=2, resolution=96).shape == (2, 96, 128, 3)


def test_small_areas_lie_on_large_ones() -> None:
    logits = torch.full((2, 16, 16), -4.0)
    logits[0, 2:6, 2:6] = 4.0
    logits[1] = 4.0
    masks = Masks(
        logits, torch.tensor([0.9, 0.99]), torch.tensor([[8.0, 8, 23, 23], [0, 0, 63, 63]]), torch.tensor([256, 4096])
    )
    hint = painted(kept(masks), Scale(SIDE, Size(64, 64), Size(64, 64)), 3)
    large, small = seeded_colours(2, 3)
    assert torch.equal(hint[15, 15], small) and torch.equal(hint[40, 40], large)


def test_of_two_masks_with_one_box_the_better_stays() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
    masks = Masks(
        torch.arange(3.0).reshape(3, 1, 1), torch.tensor([0.9, 0.95, 0.91]), boxes, torch.tensor([50, 49, 99])
    )
    assert kept(masks).logits.flatten().tolist() == [2, 1]


def test_a_picture_is_seen_once(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    inner: Any = network.module.network
    encode = inner.get_image_embeddings

    def counted(picture: Tensor) -> Tensor:
        seen.append(len(picture))
        features: Tensor = encode(picture)
        return features

    monkeypatch.setattr(inner, "get_image_embeddings", counted)
    sam(as_image(noise(48, 64), noise(48, 64, 1)), networks={NAME: network}, points_per_side=12)
    assert seen == [2]


@pytest.fixture
def broken(network: Network) -> Iterator[Network]:
    weights = network.module.network.vision_encoder.neck.conv1.weight  # type: ignore[union-attr]
    whole = weights.clone()
    weights[0] = float("inf")
    yield network
    weights.copy_(whole)


def test_features_that_are_no_numbers(broken: Network) -> None:
    with pytest.raises(PreprocessorError) as refused:
        sam(as_image(noise(48, 64)), networks={NAME: broken})
    assert str(refused.value) == (
        f"{NAME}: found scores that are NaN or infinite, but numbers were expected; start ComfyUI with --fp32-unet, or download the network's "
        "files anew."
    )


def test_nothing_found_is_black(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control_composer.preprocessors.sam.GOOD", 1e9)
    hint = sam(as_image(noise(48, 64)), networks={NAME: network}, points_per_side=3)
    assert hint.shape == (1, 48, 64, 3) and not bool(hint.any())


def test_another_network_in_the_folder(tmp_path: Path) -> None:
    WRITTEN["segformer-b0-finetuned-ade-512-512"](tmp_path / NAME)
    with pytest.raises(PreprocessorError) as refused:
        SAMS[0].build(tmp_path / NAME)
    assert str(refused.value) == (
        f"'{NAME}/config.json': found a 'segformer', but a 'sam' for SamModel was expected; "
        "put the published folder there, or choose the network that this one is."
    )
