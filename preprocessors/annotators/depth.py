"""Networks of depth: folders of the hub, read by transformers. Sizes are not known here to the byte; licences are those that the hub's pages show."""

from __future__ import annotations

from functools import partial
from typing import Literal

from ..networks.transformer import build_transformer
from .annotator import HUGGING_FACE, Annotator, File

EVERYONE = "everyone may use it commercially"
NOBODY = "commercial use is not allowed"
ASK = "ask its authors before commercial use"

Width = Literal["Small", "Base", "Large"]
# Numbers for each pixel looked at, counted on the published settings by benchmarks/depth_published.py and doubled.
VALUES: dict[Width, int] = {"Small": 400, "Base": 700, "Large": 1200}


def folder(
    identifier: str,
    repository: str,
    architecture: str,
    licence: str,
    commercial: str,
    values_per_pixel: int,
    *,
    half: bool = True,
    weights: str = "model.safetensors",
) -> Annotator:
    address = f"{HUGGING_FACE}{repository}/resolve/main/"
    return Annotator(
        identifier,
        tuple(File(name, address=address + name) for name in ("config.json", weights)),
        licence,
        commercial,
        partial(build_transformer, architecture=architecture),
        values_per_pixel,
        half=half,
        folder=repository,
        reads="path",
    )


def depth_anything(identifier: str, repository: str, width: Width, licence: str, commercial: str) -> Annotator:
    return folder(identifier, repository, "DepthAnythingForDepthEstimation", licence, commercial, VALUES[width])


DEPTH_ANYTHINGS = (
    depth_anything(
        "Depth-Anything-V2-Small", "depth-anything/Depth-Anything-V2-Small-hf", "Small", "Apache-2.0", EVERYONE
    ),
    depth_anything(
        "Depth-Anything-V2-Base", "depth-anything/Depth-Anything-V2-Base-hf", "Base", "CC-BY-NC-4.0", NOBODY
    ),
    depth_anything(
        "Depth-Anything-V2-Large", "depth-anything/Depth-Anything-V2-Large-hf", "Large", "CC-BY-NC-4.0", NOBODY
    ),
    depth_anything("Depth-Anything-V1-Small", "LiheYoung/depth-anything-small-hf", "Small", "Apache-2.0", EVERYONE),
    depth_anything("Depth-Anything-V1-Base", "LiheYoung/depth-anything-base-hf", "Base", "Apache-2.0", EVERYONE),
    depth_anything("Depth-Anything-V1-Large", "LiheYoung/depth-anything-large-hf", "Large", "Apache-2.0", EVERYONE),
    *(
        depth_anything(
            f"Depth-Anything-V2-Metric-{place}-{width}",
            f"depth-anything/Depth-Anything-V2-Metric-{place}-{width}-hf",
            width,
            "licence not known here",
            ASK,
        )
        for place in ("Indoor", "Outdoor")
        for width in VALUES
    ),
)

MIDAS = (
    # Its repository has no safetensors.
    folder(
        "DPT-Hybrid-MiDaS",
        "Intel/dpt-hybrid-midas",
        "DPTForDepthEstimation",
        "Apache-2.0",
        EVERYONE,
        1200,
        weights="pytorch_model.bin",
    ),
    folder("DPT-Large", "Intel/dpt-large", "DPTForDepthEstimation", "Apache-2.0", EVERYONE, 1200),
)

# Its metres come of sums of exponentials: without the files nothing shows that half precision holds them.
ZOES = (
    folder(
        "ZoeDepth-NYU-KITTI",
        "Intel/zoedepth-nyu-kitti",
        "ZoeDepthForDepthEstimation",
        "MIT",
        EVERYONE,
        1600,
        half=False,
    ),
    folder("ZoeDepth-NYU", "Intel/zoedepth-nyu", "ZoeDepthForDepthEstimation", "MIT", EVERYONE, 1600, half=False),
    folder("ZoeDepth-KITTI", "Intel/zoedepth-kitti", "ZoeDepthForDepthEstimation", "MIT", EVERYONE, 1600, half=False),
)

DEPTH_PRO = folder(
    "DepthPro",
    "apple/DepthPro-hf",
    "DepthProForDepthEstimation",
    "Apple's model licence for research (AMLR)",
    NOBODY,
    1200,
)

DEPTHS: tuple[Annotator, ...] = (*DEPTH_ANYTHINGS, *MIDAS, *ZOES, DEPTH_PRO)
