"""Networks of segmentation: folders of the hub, read by transformers. Sizes are known only where they are given; numbers for each pixel are
those that benchmarks/segmentation_published.py counts, doubled."""

from __future__ import annotations

from functools import partial

from ..networks.sam import build_sam
from ..networks.segmenter import MaskSegmenter, PixelSegmenter, Segmenter, TaskSegmenter, build_segmenter
from ..palettes import ADE20K, COCO, Palette
from .annotator import HUGGING_FACE, Annotator, File

EVERYONE = "everyone may use it commercially"
NOBODY = "commercial use is not allowed"
ASK = "ask its authors before commercial use"

SAFE, BIN = "model.safetensors", "pytorch_model.bin"


def files(repository: str, weights: str, size: int = 0, sha256: str | None = None) -> tuple[File, ...]:
    address = f"{HUGGING_FACE}{repository}/resolve/main/"
    settings = (File(name, address=address + name) for name in ("config.json", "preprocessor_config.json"))
    return (*settings, File(weights, size, sha256, address + weights))


def segmenter(
    repository: str,
    architecture: str,
    kind: type[Segmenter],
    palette: Palette,
    licence: str,
    commercial: str,
    values_per_pixel: int,
    *,
    weights: str = BIN,
    size: int = 0,
    sha256: str | None = None,
    half: bool = True,
    divisor: int = 1,
) -> Annotator:
    return Annotator(
        repository.partition("/")[2],
        files(repository, weights, size, sha256),
        licence,
        commercial,
        partial(build_segmenter, architecture=architecture, kind=kind, palette=palette, divisor=divisor),
        values_per_pixel,
        half=half,
        folder=repository,
        reads="path",
    )


# Its task comes in as numbers up to 49,407, which half precision rounds.
_oneformer = partial(
    segmenter,
    architecture="OneFormerForUniversalSegmentation",
    kind=TaskSegmenter,
    licence="MIT",
    commercial=EVERYONE,
    values_per_pixel=800,
    half=False,
)

ONEFORMERS = (
    _oneformer(
        "shi-labs/oneformer_ade20k_swin_tiny",
        palette=ADE20K,
        size=203_389_501,
        sha256="909b07dbf4129c2bbb8df4498e35dcd46f305e3ec45329d3ff6d4f0360de27f3",
    ),
    _oneformer("shi-labs/oneformer_ade20k_swin_large", palette=ADE20K, weights=SAFE),
    _oneformer("shi-labs/oneformer_coco_swin_large", palette=COCO),
)

# Its authors kept the part that puts several sizes together in full precision (facebookresearch/Mask2Former, msdeformattn.py).
MASK2FORMERS = tuple(
    segmenter(
        f"facebook/mask2former-swin-{width}-{data}",
        "Mask2FormerForUniversalSegmentation",
        MaskSegmenter,
        palette,
        "CC-BY-NC-4.0",
        NOBODY,
        600,
        half=False,
        divisor=32,
        weights=SAFE if (width, palette) == ("large", ADE20K) else BIN,
    )
    for data, palette in (("ade-semantic", ADE20K), ("coco-panoptic", COCO))
    for width in ("tiny", "small", "base", "large")
)

UPERNETS = tuple(
    segmenter(
        f"openmmlab/upernet-{backbone}",
        "UperNetForSemanticSegmentation",
        PixelSegmenter,
        ADE20K,
        "no licence known here",
        ASK,
        700,
        weights=SAFE if backbone in ("convnext-tiny", "swin-large") else BIN,
    )
    for backbone in (
        *(f"convnext-{width}" for width in ("tiny", "small", "base", "large", "xlarge")),
        *(f"swin-{width}" for width in ("tiny", "small", "base", "large")),
    )
)

SEGFORMERS = tuple(
    segmenter(
        f"nvidia/segformer-{width}",
        "SegformerForSemanticSegmentation",
        PixelSegmenter,
        ADE20K,
        "NVIDIA's source code licence for SegFormer: research and evaluation",
        NOBODY,
        300 if width.startswith("b0") else 900,
        weights=SAFE if width.startswith("b0") else BIN,
    )
    for width in (*(f"b{number}-finetuned-ade-512-512" for number in range(5)), "b5-finetuned-ade-640-640")
)

SAMS = tuple(
    Annotator(
        f"sam-vit-{width}",
        files(f"facebook/sam-vit-{width}", BIN if width == "large" else SAFE),
        "Apache-2.0",
        EVERYONE,
        build_sam,
        1600,
        folder=f"facebook/sam-vit-{width}",
        reads="path",
    )
    for width in ("base", "large", "huge")
)

SEGMENTATIONS: tuple[Annotator, ...] = (*ONEFORMERS, *MASK2FORMERS, *UPERNETS, *SEGFORMERS, *SAMS)
