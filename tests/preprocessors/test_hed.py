"""HED against the published recipe, written anew here, on random weights in the published names."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d

from control_composer.preprocessors import PreprocessorError
from control_composer.preprocessors.hed import hed, scribble_hed
from control_composer.preprocessors.networks.hed import build_hed
from control_composer.tests.preprocessors.annotator_weights import MADE, random_network
from control_composer.tests.preprocessors.pictures import as_image, noise
from control_composer.tests.preprocessors.test_pidinet import strokes_recipe

COUNTS = (2, 2, 3, 3, 3)


def recipe(weights: dict[str, Tensor], picture: np.ndarray) -> np.ndarray:
    """An RGB picture, uint8, padded as the field does it -> edges in 0..1, float64."""
    height, width = picture.shape[:2]
    padded = np.pad(picture, ((0, -height % 64), (0, -width % 64), (0, 0)), mode="edge")
    h = torch.from_numpy(padded).float().permute(2, 0, 1)[None] - weights["norm"]
    maps = []
    for block, count in enumerate(COUNTS, start=1):
        if block > 1:
            h = max_pool2d(h, kernel_size=(2, 2), stride=(2, 2))
        for n in range(count):
            name = f"block{block}.convs.{n}"
            h = conv2d(h, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1).relu()
        found = conv2d(h, weights[f"block{block}.projection.weight"], weights[f"block{block}.projection.bias"])
        size = padded.shape[1], padded.shape[0]
        maps.append(cv2.resize(found[0, 0].numpy(), size, interpolation=cv2.INTER_LINEAR))
    edge = 1 / (1 + np.exp(-np.mean(np.stack(maps, axis=2), axis=2).astype(np.float64)))
    return edge[:height, :width]


@pytest.mark.parametrize("size", [(64, 128), (70, 93)])
def test_random_weights(size: tuple[int, int]) -> None:
    picture = noise(*size)
    expected = recipe(MADE["HED"](), picture)
    assert expected.std() > 0.05
    networks = {"HED": random_network("HED")}
    soft = hed(as_image(picture), networks=networks, safe=False)
    assert np.abs(soft[0, ..., 2].numpy() - expected).max() < 1e-4
    safe = hed(as_image(picture), networks=networks)[0, ..., 0].numpy()
    assert np.mean(np.abs(safe - np.minimum(np.trunc(expected * 3) / 2, 1)) > 1e-6) < 1e-3
    strokes = scribble_hed(as_image(picture), networks=networks)[0, ..., 0].numpy()
    assert np.array_equal(strokes * 255, strokes_recipe((safe * 255).astype(np.uint8)))


def test_other_files_are_refused() -> None:
    weights = MADE["HED"]()
    del weights["block5.projection.bias"]
    with pytest.raises(PreprocessorError) as refused:
        build_hed(weights, file="ControlNetHED.pth")
    assert str(refused.value) == (
        "'ControlNetHED.pth': found no tensor 'block5.projection.bias', but the 37 tensors of HED were expected; "
        "put the published file there, under its own name."
    )
