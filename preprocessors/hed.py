"""Soft edges and scribbles by HED."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .networks.network import Network
from .preprocessor import Preprocessor
from .strokes import SAFE, as_strokes, made_safe
from .through import through


def edges(image_bhwc: Tensor, networks: Mapping[str, Network], safe: bool, resolution: int) -> Tensor:
    """(B, H', W', 1) float32 in 0..1."""
    found = through(image_bhwc, resolution, lambda picture: networks["HED"](picture).sigmoid())
    return made_safe(found) if safe else found


def hed(image_bhwc: Tensor, *, networks: Mapping[str, Network], safe: bool = True, resolution: int = 0) -> Tensor:
    """Soft white edges on black; `safe` in three levels. (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1, the shorter side at
    `resolution` (0: its own).
    """
    return edges(image_bhwc, networks, safe, resolution).repeat(1, 1, 1, 3)


def scribble_hed(
    image_bhwc: Tensor, *, networks: Mapping[str, Network], safe: bool = True, resolution: int = 0
) -> Tensor:
    """White strokes along the ridges of the soft edges. (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 of 0 and 1, the shorter side at
    `resolution` (0: its own).
    """
    return as_strokes(edges(image_bhwc, networks, safe, resolution))


HED = Preprocessor(
    id="HED",
    name="HED Soft Edge",
    function=hed,
    parameters=(SAFE,),
    annotators=("HED",),
    output="soft white edges on black",
    description="Soft edges by a network: for the softedge and HED ControlNets.",
    aliases=(
        "HEDPreprocessor",
        "softedge_hed",
        "softedge_hedsafe",
        "soft edge",
        "soft-edge lines",
        "holistically nested",
    ),
)

SCRIBBLE_HED = Preprocessor(
    id="ScribbleHED",
    name="HED Scribble",
    function=scribble_hed,
    parameters=(SAFE,),
    annotators=("HED",),
    output="white strokes on black",
    description="Scribbles of a photograph by a network: for the scribble ControlNets.",
    aliases=("FakeScribblePreprocessor", "scribble_hed", "fake scribble"),
)
