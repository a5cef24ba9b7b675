"""Networks of depth: folders of the hub, read by transformers. Licences are those that the hub's pages show."""

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
VALUES: dict[Width, int] = {"Small": 240, "Base": 480, "Large": 760}

METRIC = "depth-anything/Depth-Anything-V2-Metric"
KNOWN: dict[str, tuple[int, str]] = {
    "depth-anything/Depth-Anything-V2-Small-hf": (
        99_173_660,
        "3152477ce0d8d6978d76b995120de97cb5b928701fd0f817769f59e249a16b70",
    ),
    f"{METRIC}-Indoor-Small-hf": (0, "e990eb82fbf11b05b7813261196a2b841bdcf5a05f64396724a8987fa90504a3"),
    f"{METRIC}-Indoor-Base-hf": (0, "8b902f5d9a8c8a9520f3a8c6a00afe442b464eff5aaf0cb405d1da721cd9f79f"),
    f"{METRIC}-Indoor-Large-hf": (0, "04d3295ff4f9cbee72b8998a85930fe870b45ba4431e7af47415fbded02388ca"),
    f"{METRIC}-Outdoor-Small-hf": (0, "ad065c77a7421ca55159a1f0db9433397a607690f2d76bb8a6fc54b1be7a3124"),
    f"{METRIC}-Outdoor-Base-hf": (0, "1f2e9ed13ee39126686994669f8d1bfd9cd8f093a4d2a0891e5a0e5263b480c9"),
    f"{METRIC}-Outdoor-Large-hf": (0, "15f7de4b22f1b1194847ea694ee9ed6395563ba5cd52b70b87901f183c232c9a"),
    "Intel/zoedepth-nyu": (0, "b616e347efc30e64822be28d2464c2fcd0b665b5fdbc9a135d53d168c31c77ab"),
    "Intel/zoedepth-kitti": (0, "8427d1e398736f909cc7432276981417b2e7ec698b4d70786022142def78fe38"),
    "Intel/zoedepth-nyu-kitti": (0, "c5494fa0938f18d71e215e245472470c3aefebd7b434abd89750e5ae4008e2dc"),
}
"""By repository: bytes (0 where not known) and SHA-256 sum of its weights, as projects that check them have them."""


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
    size, sha256 = KNOWN.get(repository, (0, None))
    address = f"{HUGGING_FACE}{repository}/resolve/main/"
    return Annotator(
        identifier,
        (
            File("config.json", address=f"{address}config.json"),
            File(weights, size, sha256, address + weights),
        ),
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
        640,
        weights="pytorch_model.bin",
    ),
    folder("DPT-Large", "Intel/dpt-large", "DPTForDepthEstimation", "Apache-2.0", EVERYONE, 700),
)

# Its metres come of sums of exponentials: without the files nothing shows that half precision holds them.
ZOES = (
    folder(
        "ZoeDepth-NYU-KITTI",
        "Intel/zoedepth-nyu-kitti",
        "ZoeDepthForDepthEstimation",
        "MIT",
        EVERYONE,
        1400,
        half=False,
    ),
    folder("ZoeDepth-NYU", "Intel/zoedepth-nyu", "ZoeDepthForDepthEstimation", "MIT", EVERYONE, 1400, half=False),
    folder("ZoeDepth-KITTI", "Intel/zoedepth-kitti", "ZoeDepthForDepthEstimation", "MIT", EVERYONE, 1400, half=False),
)

DEPTH_PRO = folder(
    "DepthPro",
    "apple/DepthPro-hf",
    "DepthProForDepthEstimation",
    "Apple's model licence for research (AMLR)",
    NOBODY,
    860,
)

DEPTHS: tuple[Annotator, ...] = (*DEPTH_ANYTHINGS, *MIDAS, *ZOES, DEPTH_PRO)
