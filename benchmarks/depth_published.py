"""The depth networks at their published widths with random weights: parameters, numbers in memory for each pixel, and time beside transformers' pipeline.

    python host.py python -m control_composer.benchmarks.depth_published [NAME ...] [--seconds]

Without --seconds nothing is computed: memory is counted on tensors that have shapes only.
"""

from __future__ import annotations

import argparse
import time
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..preprocessors import depth_anything, depth_pro, midas, zoe_depth
from ..preprocessors.looking import IMAGENET
from ..preprocessors.networks.network import Network

NECKS = {"Small": [48, 96, 192, 384], "Base": [96, 192, 384, 768], "Large": [256, 512, 1024, 1024]}
WIDTHS = {"Small": (384, 6, 12, 64), "Base": (768, 12, 12, 128), "Large": (1024, 16, 24, 256)}


def depth_anything_settings(width: str) -> Any:
    from transformers import DepthAnythingConfig

    hidden, heads, layers, fusion = WIDTHS[width]
    backbone = {
        "model_type": "dinov2",
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
    }
    backbone |= {"image_size": 518, "patch_size": 14, "reshape_hidden_states": False, "apply_layernorm": True}
    backbone |= {"out_indices": [5, 12, 18, 24] if width == "Large" else [3, 6, 9, 12]}
    return DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=hidden,
        neck_hidden_sizes=NECKS[width],
        fusion_hidden_size=fusion,
    )


def dpt_settings(hybrid: bool) -> Any:
    from transformers import DPTConfig

    if hybrid:
        return DPTConfig(is_hybrid=True, neck_hidden_sizes=[256, 512, 768, 768])
    return DPTConfig(
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        backbone_out_indices=[5, 11, 17, 23],
        neck_hidden_sizes=NECKS["Large"],
    )


def zoe_settings() -> Any:
    from transformers import ZoeDepthConfig

    return ZoeDepthConfig(neck_hidden_sizes=NECKS["Large"])


def depth_pro_settings() -> Any:
    from transformers import DepthProConfig

    part = {"model_type": "dinov2", "hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 24}
    part |= {"patch_size": 16, "image_size": 384}
    return DepthProConfig(
        use_fov_model=True, image_model_config=part, patch_model_config=dict(part), fov_model_config=dict(part)
    )


# By name: the class, its settings, and the size that it looks at in counting.
PUBLISHED: Mapping[str, tuple[str, Callable[[], Any], tuple[int, int]]] = {
    **{
        f"Depth-Anything-V2-{width}": (
            "DepthAnythingForDepthEstimation",
            partial(depth_anything_settings, width),
            (518, 518),
        )
        for width in WIDTHS
    },
    "DPT-Hybrid-MiDaS": ("DPTForDepthEstimation", lambda: dpt_settings(True), (384, 384)),
    "DPT-Large": ("DPTForDepthEstimation", lambda: dpt_settings(False), (384, 384)),
    "ZoeDepth-NYU": ("ZoeDepthForDepthEstimation", lambda: zoe_settings(), (384, 512)),
    "DepthPro": ("DepthProForDepthEstimation", depth_pro_settings, (1536, 1536)),
}


def made(name: str) -> nn.Module:
    import transformers

    architecture, settings, _ = PUBLISHED[name]
    network: nn.Module = getattr(transformers, architecture)(settings()).eval().requires_grad_(False)
    return network


class Peak(TorchDispatchMode):
    """The most bytes that tensors made while it is on have at once."""

    def __init__(self, known: Iterable[Tensor]):
        super().__init__()  # type: ignore[no-untyped-call]
        self.known = {tensor.untyped_storage()._cdata for tensor in known}
        self.holders: Counter[int] = Counter()
        self.now = self.most = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self.known:
                storage = tensor.untyped_storage()
                place, size = storage._cdata, storage.nbytes()
                self.now += 0 if self.holders[place] else size
                self.holders[place] += 1
                weakref.finalize(tensor, self.let_go, place, size)
        self.most = max(self.most, self.now)
        return found

    def let_go(self, place: int, size: int) -> None:
        self.holders[place] -= 1
        self.now -= 0 if self.holders[place] else size


def counted(name: str) -> str:
    """The most numbers in memory at once beside the weights, for each pixel."""
    with torch.device("meta"):
        network, picture = made(name), torch.zeros(1, 3, *PUBLISHED[name][2])
    parameters = sum(weights.numel() for weights in network.parameters())
    peak = Peak([*network.parameters(), *network.buffers()])
    with torch.no_grad(), peak:
        network(picture)
    numbers = peak.most / 4 / picture[0, 0].numel()
    return f"{name}: {parameters / 1e6:.1f} million parameters, {numbers:.0f} numbers for each pixel"


def processor(name: str) -> Any:
    from transformers import DepthProImageProcessor, DPTImageProcessor, ZoeDepthImageProcessor

    if name.startswith("Depth-Anything"):
        mean, deviation = map(list, IMAGENET)
        sides = {"height": 518, "width": 518}
        return DPTImageProcessor(
            size=sides, ensure_multiple_of=14, keep_aspect_ratio=True, image_mean=mean, image_std=deviation
        )
    if name.startswith("DPT"):
        return DPTImageProcessor()
    return ZoeDepthImageProcessor(ensure_multiple_of=32) if name.startswith("Zoe") else DepthProImageProcessor()


def ours(name: str, image: Tensor, network: Network) -> Tensor:
    if name.startswith("Depth-Anything"):
        return depth_anything.predicted(image, network, name, 518, 0)
    if name.startswith("DPT"):
        return midas.midas_depth(image, network, name, 0)
    if name.startswith("Zoe"):
        return zoe_depth.zoe_metres(image, network, name, 384)
    return depth_pro.depth_pro_metres(image, network, 0)


def compared(name: str, frames: int, rounds: int) -> str:
    """Processor time of ours and of the pipeline in turn, the least of some rounds, and how far the depths of one picture in floats are apart."""
    from PIL import Image
    from transformers import pipeline

    generator = torch.Generator().manual_seed(0)
    # Cubic resizing goes beyond black and white in the library, not here.
    small = 0.1 + 0.8 * torch.rand(frames, 3, 32, 48, generator=generator)
    image = nn.functional.interpolate(small, (512, 768), mode="bilinear").movedim(1, -1)
    pictures = [Image.fromarray((frame * 255).round().byte().numpy()) for frame in image]
    image = torch.stack([torch.from_numpy((frame * 255).round().numpy() / 255) for frame in image])
    module = made(name)
    theirs = pipeline("depth-estimation", model=module, image_processor=processor(name), device="cpu")
    network = Network(module, torch.device("cpu"), torch.float32)
    times: dict[str, list[float]] = {"ours": [], "pipeline": []}
    for _ in range(rounds):
        start = time.process_time()
        found = ours(name, image, network)
        times["ours"].append((time.process_time() - start) / frames)
        start = time.process_time()
        for picture in pictures:
            theirs(picture)
        times["pipeline"].append((time.process_time() - start) / frames)
    sees = processor(name)
    with torch.no_grad():
        seen = sees(images=image[0].movedim(-1, 0), do_rescale=False, return_tensors="pt")
        depths = sees.post_process_depth_estimation(module(**seen), [tuple(image.shape[1:3])])
    expected = depths[0]["predicted_depth"]
    far = float((found[0] - expected).abs().max() / expected.abs().max())
    fastest = {who: min(seconds) for who, seconds in times.items()}
    return (
        f"{name}: {fastest['ours']:.2f} s a frame, pipeline {fastest['pipeline']:.2f} s; depths {far:.1e} of the largest apart, "
        f"theirs spread over {float(1 - expected.min() / expected.max()):.2f} of it"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*PUBLISHED, []], help="which networks; all without names")
    parser.add_argument("--frames", type=int, default=2, help="in a batch of ours; the pipeline takes one at a time")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", action="store_true", help="compute and take the time")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    for name in given.names or PUBLISHED:
        print(compared(name, given.frames, given.rounds) if given.seconds else counted(name), flush=True)


if __name__ == "__main__":
    main()
