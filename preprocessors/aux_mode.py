"""The pixels that comfyui_controlnet_aux gives, for workflows that were made with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .lineart_standard import LINEART_STANDARD
from .networks.network import Network
from .pixels import as_rgb, check_picture
from .preprocessor import Preprocessor, Value
from .sizing import Size, size_at
from .strokes import as_strokes
from .teed import SIGMA, TEED, THRESHOLD, with_lines
from .through import padded_size

SMALLEST, IN_PLACE_OF_SMALLER = 64, 512
"""A resolution below the first is taken for the second; 0 is the picture's own size, unpadded (controlnet_aux 1.1.5, as the rest of this file)."""
TILE_MULTIPLE = 64
A_LITTLE = 1e-4
"""In 8-bit steps: so that an 8-bit number that was a float between is that number again."""


@dataclass(frozen=True)
class Way:
    """How that pack runs one preprocessor, where it is not as it runs most of them."""

    looks_at: Literal["padded", "resized", "own size, then resized", "own size"] = "padded"
    """Pictures resized and padded to multiples of 64, only resized, or as they are; in the third case the hint is resized."""
    enlarge: Literal["cubic", "area"] = "cubic"
    multiple: int = 1
    """The resolution is raised to a multiple of this."""
    negative: bool = False
    up: bool = False
    """8-bit steps are rounded up: dark lines were rounded down before they became light ones."""
    strokes_again: bool = False
    """The strokes are found a second time on what the first gave."""
    settings: Mapping[str, Value] = field(default_factory=dict)
    """Of parameters that it does not have, whatever they are set to."""


USUAL = Way()
WAYS: Mapping[str, Way] = {
    "Scribble": Way(enlarge="area", negative=True),
    "ScribblePiDiNet": Way(strokes_again=True),
    "ColorGrid": Way(looks_at="resized", enlarge="area"),
    "TileSimple": Way(looks_at="own size"),
    "TileGuided": Way(looks_at="own size"),
    "MLSD": Way(enlarge="area", settings={"inference_size": 0}),
    "Lineart": Way(up=True),
    "LineartAnime": Way(up=True),
    "MangaLine": Way(multiple=256, up=True),
    "DWPose": Way(looks_at="own size, then resized"),
}
DEPTH_ANYTHING, SECOND = "DepthAnything", Way(looks_at="own size, then resized")
"""Only its second version has this way."""


def way_of(preprocessor: Preprocessor, parameters: Mapping[str, Any]) -> Way:
    if preprocessor.id == DEPTH_ANYTHING:
        return SECOND if "V2" in str(preprocessor.with_defaults(parameters)["network"]) else USUAL
    return WAYS.get(preprocessor.id, USUAL)


def resolution_as_aux(resolution: int, way: Way = USUAL) -> int:
    """What that pack makes of a resolution."""
    if resolution == 0:
        return 0
    taken = resolution if resolution >= SMALLEST or resolution < 0 else IN_PLACE_OF_SMALLER
    return -(-taken // way.multiple) * way.multiple


def resolution_of_networks(preprocessor: Preprocessor, resolution: int, parameters: Mapping[str, Any]) -> int:
    """At which resolution its networks look at the picture, 0 for its own, for estimates of memory."""
    way = way_of(preprocessor, parameters)
    return 0 if way.looks_at.startswith("own size") else resolution_as_aux(resolution, way)


def as_controlnet_aux(
    preprocessor: Preprocessor,
    image_bhwc: Tensor,
    resolution: int = 0,
    networks: Mapping[str, Network] | None = None,
    **parameters: Any,
) -> tuple[Tensor, list[Any]]:
    """As `Preprocessor.with_data`: hints in 8-bit steps, of pictures cut off to 8 bits, resized and padded in 8 bits before anything is found.

    On the CPU with OpenCV, whatever the image's device; networks are where they are. Raises PreprocessorError.
    """
    if preprocessor.id == "AnyLine":
        return anyline_as_aux(image_bhwc, resolution, networks or {}, **parameters), []
    pictures = cut_to_8_bits(image_bhwc)
    if preprocessor.id == "Tile":
        return as_image([tile_as_aux(picture, **parameters) for picture in pictures]).to(image_bhwc.device), []
    way = way_of(preprocessor, parameters)
    resolution = resolution_as_aux(resolution, way)
    own = Size(*pictures.shape[1:3])
    size = size_at(own, resolution) if way.looks_at != "resized" else size_by_shorter_side(own, resolution)
    looked_at = pictures
    if way.looks_at in ("padded", "resized"):
        looked_at = np.stack([resized(picture, size, resolution, way) for picture in pictures])
    if way.looks_at == "padded" and resolution:
        high, wide = padded_size(size, 0)
        looked_at = np.pad(looked_at, ((0, 0), (0, high - size.height), (0, wide - size.width), (0, 0)), mode="edge")
    hints, data = preprocessor.with_data(as_image(looked_at), 0, networks, **(parameters | dict(way.settings)))
    if way.looks_at in ("padded", "resized"):
        hints = hints[:, : size.height, : size.width]
        data = [cut(one, size) for one in data]
    if way.strokes_again:
        hints = as_strokes(hints[..., :1])
    eight = in_8_bits(hints.cpu(), way)
    if way.looks_at == "own size, then resized":
        eight = np.stack([resized(hint, size, resolution, way) for hint in eight])
    return as_image(eight).to(image_bhwc.device), data


def cut_to_8_bits(image_bhwc: Tensor) -> np.ndarray:
    """(B, H, W, 3) uint8: every number cut off, not rounded, and what is transparent on white in 8 bits too. Raises PreprocessorError."""
    check_picture(as_rgb(image_bhwc), "image")
    eight = (image_bhwc.detach().to("cpu", torch.float32) * 255).trunc().clamp(0, 255)
    if eight.shape[3] == 4:
        alpha = eight[..., 3:] / 255
        eight = (eight[..., :3] * alpha + 255 * (1 - alpha)).trunc().clamp(0, 255)
    pictures: np.ndarray = eight.to(torch.uint8).expand(-1, -1, -1, 3).contiguous().numpy()
    return pictures


def as_image(pictures: Any) -> Tensor:
    return torch.from_numpy(np.stack(list(pictures))).float() / 255


def in_8_bits(hints_bhwc: Tensor, way: Way) -> np.ndarray:
    scaled = hints_bhwc.float() * 255
    eight = (scaled - A_LITTLE).ceil() if way.up else (scaled + A_LITTLE).floor()
    steps: np.ndarray = eight.clamp(0, 255).to(torch.uint8).contiguous().numpy()
    return 255 - steps if way.negative else steps


def size_by_shorter_side(size: Size, resolution: int) -> Size:
    """As `size_at`, but the longer side from the quotient of the sides, which another number can come out of."""
    if resolution <= 0:
        return size_at(size, resolution)
    height, width = size
    if height < width:
        return Size(resolution, round(width / height * resolution))
    return Size(round(height / width * resolution), resolution)


def resized(picture: np.ndarray, size: Size, resolution: int, way: Way) -> np.ndarray:
    """uint8, by area averaging where it is not enlarged."""
    import cv2  # here, because importing the pack must stay fast

    larger = resolution > min(picture.shape[:2]) and way.enlarge == "cubic"
    found: np.ndarray = cv2.resize(
        picture, (size.width, size.height), interpolation=cv2.INTER_CUBIC if larger else cv2.INTER_AREA
    )
    return found


def cut(data: Any, size: Size) -> Any:
    """Data of a padded picture, for the picture: poses count from its upper left corner."""
    return dataclasses.replace(data, height=size.height, width=size.width)


def tile_as_aux(picture: np.ndarray, halvings: int = 3) -> np.ndarray:
    """The nearest multiples of 64 pixels, which the hint keeps; the resolution is not read."""
    import cv2  # here, because importing the pack must stay fast

    height, width = (max(1, round(side / TILE_MULTIPLE)) * TILE_MULTIPLE for side in picture.shape[:2])
    small = (max(1, width >> halvings), max(1, height >> halvings))
    found: np.ndarray = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
    for _ in range(halvings):
        found = cv2.pyrUp(found)
    return found


def anyline_as_aux(image_bhwc: Tensor, resolution: int, networks: Mapping[str, Network], **parameters: Any) -> Tensor:
    """Edges and lines each as that pack makes them, and put together as numbers."""
    soft, _ = as_controlnet_aux(TEED, image_bhwc, resolution, {"TEED": networks["AnyLine"]})
    lines, _ = as_controlnet_aux(LINEART_STANDARD, image_bhwc, resolution, sigma=SIGMA, intensity_threshold=THRESHOLD)
    return with_lines(soft[..., :1], lines[..., :1], **parameters)
