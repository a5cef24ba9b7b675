"""Line art beside controlnet-aux's, and manga's lines beside the published definition written anew, on random weights in the published names."""

from __future__ import annotations

from functools import partial
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, interpolate, leaky_relu

from control_composer.preprocessors import PreprocessorError
from control_composer.preprocessors.annotators import BY_ID
from control_composer.preprocessors.lineart import lineart
from control_composer.preprocessors.lineart_anime import LINEART_ANIME, lineart_anime
from control_composer.preprocessors.manga_line import manga_line
from control_composer.preprocessors.networks.lineart import build_lineart
from control_composer.preprocessors.networks.lineart_anime import build_lineart_anime
from control_composer.preprocessors.networks.manga_line import build_manga_line
from control_composer.preprocessors.networks.network import Network
from control_composer.preprocessors.sizing import Size
from control_composer.tests.preprocessors.annotator_weights import MADE, random_network
from control_composer.tests.preprocessors.controlnet_aux_alone import controlnet_aux
from control_composer.tests.preprocessors.pictures import as_image, noise
from control_composer.tests.preprocessors.weights_lines import (
    Shapes,
    lineart_anime_shapes,
    lineart_shapes,
    manga_line_shapes,
    random_lines,
)


def network(module: nn.Module) -> Network:
    return Network(module, torch.device("cpu"), torch.float32)


def padded(picture: np.ndarray) -> np.ndarray:
    """As the field pads."""
    return np.pad(picture, ((0, -picture.shape[0] % 64), (0, -picture.shape[1] % 64), (0, 0)), mode="edge")


def as_tensor(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(picture).float().movedim(-1, 0)[None]


def shapes_of(module: nn.Module) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def test_lineart() -> None:
    theirs = controlnet_aux("lineart")
    generator = theirs.Generator(3, 1, 3).eval()
    assert shapes_of(generator) == lineart_shapes(64)
    fine, coarse = (random_lines(lineart_shapes(64), seed) for seed in (0, 1))
    generator.load_state_dict(fine)
    networks = {"Lineart": network(build_lineart(fine)), "Lineart-coarse": network(build_lineart(coarse))}
    picture = noise(50, 90)
    with torch.no_grad():
        paper = generator(as_tensor(padded(picture)) / 255)[0, 0, :50, :90]
    assert float(paper.std()) > 0.05
    hint = lineart(as_image(picture), networks=networks)
    assert float((hint[0] - (1 - paper[..., None])).abs().max()) < 1e-4
    # Its whole preprocessor, which has 8-bit steps: fine and coarse.
    other = theirs.Generator(3, 1, 3).eval()
    other.load_state_dict(coarse)
    detector, picture = theirs.LineartDetector(generator, other), noise(64, 128, 3)
    for name, settings in (("Lineart", {}), ("Lineart-coarse", {"coarse": True})):
        expected = detector(picture, detect_resolution=64, image_resolution=64, output_type="np", **settings)
        found = lineart(as_image(picture), networks=networks, network=name)[0].numpy() * 255
        assert np.abs(found - expected).max() <= 1.001 and expected.std() > 5


def anime(width: int) -> Any:
    plain = partial(nn.InstanceNorm2d, affine=False, track_running_stats=False)
    return controlnet_aux("lineart_anime").UnetGenerator(3, 1, 8, width, norm_layer=plain, use_dropout=False).eval()


def test_lineart_anime() -> None:
    with torch.device("meta"):
        published = {f"module.{name}": shape for name, shape in shapes_of(anime(64)).items()}
    assert published == lineart_anime_shapes(64)
    weights, theirs = random_lines(lineart_anime_shapes(6)), anime(6)
    theirs.load_state_dict({name.removeprefix("module."): tensor for name, tensor in weights.items()})
    networks = {"LineartAnime": network(build_lineart_anime(weights))}
    # 200 x 300 is padded to 256 x 320, and seen at 256 x 512.
    picture = noise(200, 300)
    whole = padded(picture).astype(np.float32)
    stretched = np.clip(cv2.resize(whole, (512, 256), interpolation=cv2.INTER_CUBIC), 0, 255)
    with torch.no_grad():
        paper = (theirs(as_tensor(stretched) / 127.5 - 1)[0, 0] * 127.5 + 127.5).numpy()
    expected = 255 - cv2.resize(paper, (320, 256), interpolation=cv2.INTER_AREA)[:200, :300]
    assert expected.std() > 10
    hint = lineart_anime(as_image(picture), networks=networks)
    assert np.abs(hint[0, ..., 1].numpy() - expected / 255).max() < 1e-4
    assert LINEART_ANIME.network_size(Size(200, 300), 0, {}) == (256, 512)
    # Its whole preprocessor, which has 8-bit steps, where nothing has to be stretched.
    picture = noise(256, 256, 5)
    detector = controlnet_aux("lineart_anime").LineartAnimeDetector(theirs)
    steps = detector(picture, detect_resolution=256, image_resolution=256, output_type="np")
    assert np.abs(lineart_anime(as_image(picture), networks=networks)[0].numpy() * 255 - steps).max() <= 1.001


def manga(w: dict[str, Tensor], gray: Tensor) -> Tensor:
    """The published network (ljsabc/MangaLineExtraction_PyTorch, model_torch.py), as a formula."""

    def part(x: Tensor, name: str, stride: int = 1, up: int = 1) -> Tensor:
        norm, kernel = f"{name}.model.0", w[f"{name}.model.2.weight"]
        statistics = w[f"{norm}.running_mean"], w[f"{norm}.running_var"]
        x = batch_norm(x, *statistics, w[f"{norm}.weight"], w[f"{norm}.bias"], eps=1e-3)
        x = conv2d(leaky_relu(x, 0.2), kernel, w[f"{name}.model.2.bias"], stride, kernel.shape[-1] // 2)
        return interpolate(x, scale_factor=up, mode="nearest")

    def stage(x: Tensor, number: int, blocks: int, halves: bool = False, doubles: bool = False) -> Tensor:
        for block in range(blocks):
            name, stride = f"block{number}.model.{block}", 2 if halves and block == blocks - 1 else 1
            up = 2 if doubles and block == 0 else 1
            y = part(part(x, f"{name}.conv1", stride, up), f"{name}.residual")
            if f"{name}.shortcut.model.0.weight" in w:
                x = conv2d(x, w[f"{name}.shortcut.model.0.weight"], w[f"{name}.shortcut.model.0.bias"], stride)
                x = interpolate(x, scale_factor=up, mode="nearest")
            x = x + y
        return x

    down = [stage(gray, 0, 2)]
    for number, blocks in enumerate((3, 5, 7, 12), start=1):
        down.append(stage(down[-1], number, blocks, halves=True))
    x = down.pop()
    for number, blocks in enumerate((7, 5, 3, 2), start=5):
        x = down.pop() + stage(x, number, blocks, doubles=True)
    return part(stage(x, 9, 2), "conv15")


def test_manga_line() -> None:
    # 43.100 million numbers are trained, in 707 tensors, as the published file's.
    published = manga_line_shapes(24)
    trained = {name: shape for name, shape in published.items() if name.endswith((".weight", ".bias"))}
    assert len(published) == 707 and round(sum(np.prod(shape) for shape in trained.values()) / 1e6, 3) == 43.100
    weights = MADE["MangaLine"]()
    picture = noise(70, 100)
    weighted = padded(picture).astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    gray = torch.from_numpy(weighted)[None, None]
    with torch.no_grad():
        assert float((build_manga_line(weights)(gray) - manga(weights, gray)).abs().max()) < 1e-4 * 255
        expected = 1 - manga(weights, gray)[0, 0, :70, :100].clamp(0, 255) / 255
    assert float(expected.std()) > 0.05
    hint = manga_line(as_image(picture), networks={"MangaLine": random_network("MangaLine")})
    assert float((hint[0] - expected[..., None]).abs().max()) < 1e-4
    eight_bit = torch.from_numpy(cv2.cvtColor(padded(picture), cv2.COLOR_RGB2GRAY)).float()
    assert float((gray[0, 0] - eight_bit).abs().max()) < 0.51


def test_half_precision() -> None:
    """What a host computes in that asks for it; none of these networks does so by default."""
    picture = as_image(noise(64, 64))
    for identifier, function in (("Lineart", lineart), ("LineartAnime", lineart_anime), ("MangaLine", manga_line)):
        half = BY_ID[identifier].build(MADE[identifier](), dtype=torch.bfloat16)
        rough = function(picture, networks={identifier: Network(half, torch.device("cpu"), torch.bfloat16)})
        exact = function(picture, networks={identifier: random_network(identifier)})
        assert rough.dtype == torch.float32 and 1e-6 < float((rough - exact).abs().mean()) < 0.05


@pytest.mark.parametrize(
    ("identifier", "missing", "count"),
    [
        ("Lineart", "model2.2.conv_block.5.weight", 24),
        ("LineartAnime", "module.model.model.1.model.3.model.5.bias", 32),
        ("MangaLine", "block5.model.0.shortcut.model.0.weight", 707),
    ],
)
def test_other_files_are_refused(identifier: str, missing: str, count: int) -> None:
    build = {"Lineart": build_lineart, "LineartAnime": build_lineart_anime, "MangaLine": build_manga_line}[identifier]
    weights = MADE[identifier]()
    del weights[missing]
    with pytest.raises(PreprocessorError) as refused:
        build(weights, file="a.pth")
    assert str(refused.value) == (
        f"'a.pth': found no tensor '{missing.removeprefix('module.')}', but the {count} tensors of {identifier} were "
        "expected; put the published file there, under its own name."
    )
