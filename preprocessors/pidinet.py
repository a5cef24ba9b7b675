"""Soft edges, scribbles and sketches by PiDiNet."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .annotators import PIDINETS
from .networks.network import Network
from .preprocessor import Parameter, Preprocessor
from .strokes import SAFE, as_strokes, made_safe
from .through import through

NETWORK = "PiDiNet"
"""What the ControlNets and T2I-Adapters were trained with."""
EDGE = 0.5


def edges(image_bhwc: Tensor, networks: Mapping[str, Network], network: str, resolution: int) -> Tensor:
    """(B, H', W', 1) float32 in 0..1. The field gives it BGR as it is, without the colour statistics of the network's own training."""
    return through(image_bhwc, resolution, lambda picture: networks[network](picture.flip(1)).sigmoid())


def pidinet(
    image_bhwc: Tensor,
    *,
    networks: Mapping[str, Network],
    safe: bool = True,
    network: str = NETWORK,
    resolution: int = 0,
) -> Tensor:
    """Soft white edges on black; `safe` in three levels. (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1, the shorter side at
    `resolution` (0: its own).
    """
    found = edges(image_bhwc, networks, network, resolution)
    return (made_safe(found) if safe else found).repeat(1, 1, 1, 3)


def scribble_pidinet(
    image_bhwc: Tensor,
    *,
    networks: Mapping[str, Network],
    safe: bool = True,
    network: str = NETWORK,
    resolution: int = 0,
) -> Tensor:
    """White strokes along the ridges of the soft edges. (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 of 0 and 1, the shorter side at
    `resolution` (0: its own).
    """
    found = edges(image_bhwc, networks, network, resolution)
    return as_strokes(made_safe(found) if safe else found)


def sketch_pidinet(
    image_bhwc: Tensor, *, networks: Mapping[str, Network], network: str = NETWORK, resolution: int = 0
) -> Tensor:
    """White where an edge is likelier than not. (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 of 0 and 1, the shorter side at
    `resolution` (0: its own).
    """
    return (edges(image_bhwc, networks, network, resolution) > EDGE).float().repeat(1, 1, 1, 3)


_NETWORK = Parameter(
    "network",
    default=NETWORK,
    options=tuple(annotator.id for annotator in PIDINETS),
    tooltip="PiDiNet is what the controls were trained with. The others are its makers' smaller, faster and differently trained files.",
)
_FILES = tuple(annotator.id for annotator in PIDINETS)

PIDINET = Preprocessor(
    id="PiDiNet",
    name="PiDiNet Soft Edge",
    function=pidinet,
    parameters=(SAFE, _NETWORK),
    annotators=_FILES,
    chosen_by="network",
    output="soft white edges on black",
    description="Soft edges by a small network (2.9 MB): for the softedge ControlNets.",
    aliases=("PiDiNetPreprocessor", "softedge_pidinet", "softedge_pidisafe", "soft edge", "soft-edge lines", "pidi"),
)

SCRIBBLE_PIDINET = Preprocessor(
    id="ScribblePiDiNet",
    name="PiDiNet Scribble",
    function=scribble_pidinet,
    parameters=(SAFE, _NETWORK),
    annotators=_FILES,
    chosen_by="network",
    output="white strokes on black",
    description="Scribbles of a photograph by a small network (2.9 MB): for the scribble ControlNets.",
    aliases=("Scribble_PiDiNet_Preprocessor", "scribble_pidinet", "fake scribble", "pidi"),
)

SKETCH_PIDINET = Preprocessor(
    id="SketchPiDiNet",
    name="PiDiNet Sketch",
    function=sketch_pidinet,
    parameters=(_NETWORK,),
    annotators=_FILES,
    chosen_by="network",
    output="white lines on black",
    description="Hard lines of a photograph by a small network (2.9 MB): for the sketch T2I-Adapters.",
    aliases=("t2ia_sketch_pidi", "sketch", "t2i adapter sketch", "pidi"),
)
