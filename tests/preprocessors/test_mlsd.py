"""M-LSD beside controlnet-aux's: both networks on random weights, and the real small file on photographs, to the pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from control_composer.preprocessors import PreprocessorError
from control_composer.preprocessors.mlsd import LINES, MLSD, drawn, lines, mlsd
from control_composer.preprocessors.networks.mlsd import build_mlsd
from control_composer.preprocessors.networks.network import Network
from control_composer.preprocessors.sizing import Size
from control_composer.tests.preprocessors.annotator_weights import MADE, random_network
from control_composer.tests.preprocessors.controlnet_aux_alone import controlnet_aux
from control_composer.tests.preprocessors.pictures import as_image, noise, photographs
from control_composer.tests.preprocessors.weights_lines import mlsd_shapes

CPU = torch.device("cpu")


def theirs(size: str, weights: dict[str, Tensor] | None = None) -> Any:
    module = controlnet_aux(f"mlsd.models.mbv2_mlsd_{size}")
    if weights is None:
        with torch.device("meta"):
            return getattr(module, f"MobileV2_MLSD_{size.title()}")()
    network = getattr(module, f"MobileV2_MLSD_{size.title()}")().eval()
    network.load_state_dict(weights)
    return network


def padded(picture: np.ndarray) -> np.ndarray:
    """As the field pads."""
    return np.pad(picture, ((0, -picture.shape[0] % 64), (0, -picture.shape[1] % 64), (0, 0)), mode="edge")


def drawn_by_theirs(network: Any, picture: np.ndarray, score: float = 0.1, distance: float = 0.1) -> np.ndarray:
    whole = padded(picture)
    with torch.no_grad():
        found = controlnet_aux("mlsd.utils").pred_lines(whole, network, list(whole.shape[:2]), score, distance)
    canvas = np.zeros(whole.shape[:2], np.uint8)
    for line in found:
        x, y, other_x, other_y = [int(value) for value in line]
        cv2.line(canvas, (x, y), (other_x, other_y), [255, 255, 255], 1)
    return canvas[: picture.shape[0], : picture.shape[1]]


@pytest.mark.parametrize("size", ["tiny", "large"])
def test_random_weights(size: str) -> None:
    published = {name: tuple(tensor.shape) for name, tensor in theirs(size).state_dict().items()}
    assert published == mlsd_shapes(size == "tiny")
    weights = MADE[f"MLSD-{size}"]()
    picture = torch.rand((2, 3, 96, 128), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs(size, weights)(torch.cat([picture * 255, torch.ones(2, 1, 96, 128)], 1) / 127.5 - 1)[:, :5]
        found = build_mlsd(weights)(picture)
    assert expected.shape == found.shape == (2, 5, 48, 64) and float(expected.std()) > 1
    assert float((found - expected).abs().max()) < 1e-4 * float(expected.abs().max())
    image = noise(60, 90, seed=2)
    hint = mlsd(as_image(image), networks={"MLSD-large": random_network(f"MLSD-{size}")})
    assert np.array_equal(hint[0, ..., 1].numpy() * 255, drawn_by_theirs(theirs(size, weights), image))
    assert 0.01 < float(hint.mean()) < 0.5


def test_the_real_file_on_photographs(shared: Path) -> None:
    weights = torch.load(shared / "annotators" / "mlsd_tiny_512_fp32.pth", weights_only=True)
    their_network = theirs("tiny", weights)
    exact, ours_exact = theirs("tiny", weights).double(), build_mlsd(weights, dtype=torch.float64)
    networks = {"MLSD-tiny": Network(build_mlsd(weights), CPU, torch.float32)}
    pictures = [photographs(shared)[index][-300:, :320] for index in (3, 4, 7)]
    for picture, score, distance in zip(pictures, (0.1, 0.05, 0.3), (0.1, 8.0, 0.1), strict=True):
        bchw = torch.from_numpy(padded(picture)).double().movedim(-1, 0)[None]
        with torch.no_grad():
            expected = exact(torch.cat([bchw, torch.ones_like(bchw[:, :1])], 1) / 127.5 - 1)[:, :5]
            assert float((ours_exact(bchw / 255) - expected).abs().max()) < 1e-4
        # It makes much of roundings: in float32 controlnet-aux's differs from these numbers, which reach the hundreds, as much.
        assert float((networks["MLSD-tiny"](bchw / 255) - expected).abs().max()) < 1e-3 * float(expected.abs().max())
        hint = mlsd(as_image(picture), networks=networks, network="MLSD-tiny", score=score, distance=distance)
        their_lines = drawn_by_theirs(their_network, picture, score, distance)
        assert 0.003 < (their_lines > 0).mean() < 0.2
        assert np.array_equal(hint[0, ..., 0].numpy() * 255, their_lines)


def maps_of(centres: dict[tuple[int, int], tuple[float, ...]], height: int = 40, width: int = 50) -> Tensor:
    """Maps with lines: by row and column the logit, and from there x and y of both ends."""
    maps = torch.zeros(1, 5, height, width)
    maps[:, 0] = -9
    for (row, column), values in centres.items():
        maps[0, :, row, column] = torch.tensor(values)
    return maps


def test_what_becomes_lines() -> None:
    middle = (1.0, -4.0, -3.0, 6.0, 5.0)
    neighbour, short, unlikely = (0.9, -4.0, 0.0, 4.0, 0.0), (2.0, -0.3, 0.0, 0.3, 0.0), (-3.0, 0.0, -5.0, 0.0, 5.0)
    maps = maps_of({(20, 10): middle, (21, 11): neighbour, (5, 30): short, (30, 40): unlikely})
    (found,) = lines(maps, score=0.5, distance=1.0)
    assert np.array_equal(found, [[6.0, 17.0, 16.0, 25.0]])
    assert len(lines(maps, score=0.04, distance=0.5)[0]) == 3
    # No line: an empty hint, not an error.
    (none,) = lines(maps, score=2.0, distance=1.0)
    assert none.shape == (0, 4) and not drawn(none, Size(10, 12)).any()
    # Numbers that no picture gives: left out, or cut off at the border.
    broken = maps_of({(20, 10): (3.0, float("nan"), 0, 1, 1), (5, 5): (3.0, float("inf"), 0.0, -9.0, 0.0)})
    (found,) = lines(broken, score=0.5, distance=1.0)
    assert len(found) == 1 and drawn(found, Size(40, 50))[5].all()


def test_the_likeliest_of_too_many() -> None:
    grid = {(row, column): (1 + (row * 99 + column) / 9999, -1.0, 0, 1, 0) for row in range(1, 39, 2) for column in range(1, 49, 2)}  # fmt: skip
    both = torch.cat([maps_of(grid), maps_of({(20, 10): (1.0, -4.0, -3.0, 6.0, 5.0)})])
    many, one = lines(both, score=0.1, distance=0.1)
    assert len(grid) == 456 and len(many) == LINES and len(one) == 1
    likeliest = sorted(grid, key=lambda place: grid[place][0])[-LINES:]
    assert {(row, column) for column, row in zip(many[:, 0] + 1, many[:, 1], strict=True)} == set(likeliest)


class Seeing:
    """A network that remembers what it is given, and finds one line."""

    def __init__(self) -> None:
        self.pictures: list[Tensor] = []

    def __call__(self, picture: Tensor) -> Tensor:
        self.pictures.append(picture)
        height, width = (side // 2 for side in picture.shape[2:])
        return maps_of({(10, 20): (3.0, -19.0, -8.0, 5.0, 6.0)}, height, width).repeat(len(picture), 1, 1, 1)


@pytest.mark.parametrize(
    ("size", "resolution", "inference_size", "seen"),
    [
        ((300, 420), 0, 128, (128, 192)),
        ((300, 420), 900, 128, (128, 192)),
        ((300, 420), 0, 0, (320, 448)),
        ((300, 420), 0, 512, (320, 448)),
        ((90, 60), 150, 100, (192, 128)),
    ],
)
def test_the_network_looks_at_a_size_of_its_own(
    size: tuple[int, int], resolution: int, inference_size: int, seen: tuple[int, int]
) -> None:
    network = Seeing()
    settings = {"resolution": resolution, "inference_size": inference_size}
    hint = mlsd(as_image(noise(*size), noise(*size, 1)), networks={"MLSD-large": network}, **settings)  # type: ignore[dict-item]
    assert len(network.pictures) == 1 and network.pictures[0].shape == (2, 3, *seen)
    assert MLSD.network_size(Size(*size), resolution, {"inference_size": inference_size}) == seen
    # The line is drawn at the hint's size: from (2, 4) to (50, 32) in what the network sees without its padding.
    height, width = hint.shape[1:3]
    shorter = min(inference_size or min(height, width), height, width)
    looked_at = round(size[0] * shorter / min(size)), round(size[1] * shorter / min(size))
    ends = [(int(x * width / looked_at[1]), int(y * height / looked_at[0])) for x, y in ((2, 4), (50, 32))]
    expected = cv2.line(np.zeros((2 * height, 2 * width), np.uint8), ends[0], ends[1], 255, 1)[:height, :width]
    for frame in hint:
        assert np.array_equal(frame[..., 2].numpy() * 255, expected)


def test_other_files_are_refused() -> None:
    weights = MADE["MLSD-tiny"]()
    del weights["block12.conv1.1.running_var"]
    with pytest.raises(PreprocessorError) as refused:
        build_mlsd(weights, file="mlsd_tiny_512_fp32.pth")
    assert str(refused.value) == (
        "'mlsd_tiny_512_fp32.pth': found no tensor 'block12.conv1.1.running_var', but the 252 tensors of M-LSD were "
        "expected; put the published file there, under its own name."
    )
    with pytest.raises(PreprocessorError, match=r"found no tensor .* but the 362 tensors of M-LSD were expected"):
        build_mlsd(MADE["Lineart"]())
