"""The segmentation networks at their published widths with random weights: parameters, and numbers in memory for each pixel.

    python host.py python -m control_composer.benchmarks.segmentation_published [NAME ...] [--seconds]

--seconds times SegFormer b0 beside a loop over transformers' processor, network and post-processing, one frame at a time, as other packs do it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..preprocessors.networks.network import Network
from ..preprocessors.networks.segmenter import PixelSegmenter
from ..preprocessors.networks.sight import Sight
from ..preprocessors.palettes import ADE20K
from ..preprocessors.segmentation import segmented
from ..preprocessors.sizing import Size
from .depth_published import Peak

STAGES = ["stage1", "stage2", "stage3", "stage4"]
SWINS = {
    "tiny": {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7},
    "large": {"embed_dim": 192, "depths": [2, 2, 18, 2], "num_heads": [6, 12, 24, 48], "window_size": 12},
}


def library() -> Any:
    import transformers

    return transformers


def swin(width: str) -> Any:
    return library().SwinConfig(**SWINS[width], out_features=STAGES)


def segformer(*depths: int, narrow: bool = False) -> Any:
    return library().SegformerForSemanticSegmentation(
        library().SegformerConfig(
            depths=list(depths),
            hidden_sizes=[32, 64, 160, 256] if narrow else [64, 128, 320, 512],
            decoder_hidden_size=256 if narrow else 768,
            num_labels=150,
        )
    )


def upernet(backbone: Any, channels: int) -> Any:
    return library().UperNetForSemanticSegmentation(
        library().UperNetConfig(backbone_config=backbone, auxiliary_in_channels=channels, num_labels=150)
    )


def convnext(depths: list[int], widths: list[int]) -> Any:
    return upernet(library().ConvNextConfig(depths=depths, hidden_sizes=widths, out_features=STAGES), widths[2])


def mask2former(width: str, queries: int) -> Any:
    return library().Mask2FormerForUniversalSegmentation(
        library().Mask2FormerConfig(backbone_config=swin(width), num_queries=queries, num_labels=150)
    )


def oneformer(width: str, queries: int) -> Any:
    return library().OneFormerForUniversalSegmentation(
        library().OneFormerConfig(backbone_config=swin(width), num_queries=queries, num_labels=150)
    )


def sam(width: int, layers: int, heads: int, everywhere: list[int]) -> Any:
    vision = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "mlp_dim": 4 * width}
    return library().SamModel(library().SamConfig(vision_config={**vision, "global_attn_indexes": everywhere}))


# By name: how it is made, and the sides that it looks at in counting. Mask2Former and OneFormer must be computed for it, so they look at less.
PUBLISHED: Mapping[str, tuple[Callable[[], Any], int]] = {
    "segformer-b0": (lambda: segformer(2, 2, 2, 2, narrow=True), 512),
    "segformer-b5": (lambda: segformer(3, 6, 40, 3), 640),
    "upernet-convnext-small": (lambda: convnext([3, 3, 27, 3], [96, 192, 384, 768]), 512),
    "upernet-convnext-xlarge": (lambda: convnext([3, 3, 27, 3], [256, 512, 1024, 2048]), 640),
    "upernet-swin-large": (lambda: upernet(swin("large"), 768), 640),
    "mask2former-swin-tiny": (lambda: mask2former("tiny", 100), 256),
    "mask2former-swin-large": (lambda: mask2former("large", 200), 256),
    "oneformer-swin-tiny": (lambda: oneformer("tiny", 150), 256),
    "oneformer-swin-large": (lambda: oneformer("large", 250), 256),
    "sam-vit-base": (lambda: sam(768, 12, 12, [2, 5, 8, 11]), 1024),
    "sam-vit-huge": (lambda: sam(1280, 32, 16, [7, 15, 23, 31]), 1024),
}


def counted(name: str) -> str:
    """The most numbers in memory at once beside the weights, for each pixel."""
    make, side = PUBLISHED[name]
    computed = "former-swin" in name
    with torch.device("cpu" if computed else "meta"):
        network, picture = make().eval().requires_grad_(False), torch.zeros(1, 3, side, side)
        named: dict[str, Tensor] = {"task_inputs": torch.zeros(1, 77)} if name.startswith("oneformer") else {}
        points = torch.zeros(1, 64, 1, 2)
    parameters = sum(weights.numel() for weights in network.parameters())
    known: Any = [*network.parameters(), *network.buffers()]
    peak = Peak(known)
    with torch.no_grad(), peak:
        if name.startswith("sam"):
            features: Any = network.get_image_embeddings(picture)
        else:
            network(pixel_values=picture, **named)
    line = f"{name}: {parameters / 1e6:.2f} M parameters, {peak.most / 4 / side**2:.0f} numbers for each pixel of {side} x {side}"
    if name.startswith("sam"):
        decoding = Peak(known)
        with torch.no_grad(), decoding:
            network(image_embeddings=features, input_points=points)
        line += f", {decoding.most / 4 / side**2:.0f} at 64 points"
    return line


def seconds() -> str:
    """Of SegFormer b0, 512 x 512, four frames: each alone, all at once, and in the library's loop."""
    network = segformer(2, 2, 2, 2, narrow=True).eval()
    ours = Network(PixelSegmenter(network, Sight(square=Size(512, 512)), ADE20K), torch.device("cpu"), torch.float32)
    image = torch.rand((4, 512, 512, 3), generator=torch.Generator().manual_seed(0))
    processor = library().SegformerImageProcessor()
    colours = ADE20K.colours()

    def loop() -> None:
        for frame in image:
            inputs = processor((frame * 255).byte().numpy(), return_tensors="pt")
            with torch.no_grad():
                found = network(**inputs)
            colours[processor.post_process_semantic_segmentation(found, target_sizes=[(512, 512)])[0]]

    def took(function: Callable[[], Any]) -> float:
        function()
        spent = []
        for _ in range(3):
            start = time.process_time()
            function()
            spent.append((time.process_time() - start) / len(image))
        return min(spent)

    alone = took(lambda: [segmented(frame[None], ours, "", 0) for frame in image])
    together = took(lambda: segmented(image, ours, "", 0))
    return f"seconds of the processor for each frame: alone {alone:.2f}, four at once {together:.2f}, the library's loop {took(loop):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*PUBLISHED, []])
    parser.add_argument("--seconds", action="store_true")
    arguments = parser.parse_args()
    if arguments.seconds:
        print(seconds())
        return
    for name in arguments.names or PUBLISHED:
        print(counted(name), flush=True)


if __name__ == "__main__":
    main()
