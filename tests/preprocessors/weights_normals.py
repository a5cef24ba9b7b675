"""Random weights for NormalBAE in the published file's names, narrow."""

from __future__ import annotations

import torch
from torch import Tensor

STAGES = ((3, 3), (5, 3), (5, 5), (7, 3), (7, 5), (9, 5), (3, 3))
"""Blocks and kernel of each, as tf_efficientnet_b5_ap has them (rwightman/gen-efficientnet-pytorch)."""


def normalbae_shapes(
    stem: int, stages: tuple[int, ...], head: int, finer: tuple[int, ...], hidden: int
) -> dict[str, tuple[int, ...]]:
    """Written from the published classes (baegwangbin/surface_normal_uncertainty, models/NNET.py, architecture BN)."""
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, channels: int) -> None:
        shapes.update({f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"{name}.num_batches_tracked"] = ()

    def dense(name: str, *shape: int) -> None:
        shapes[f"{name}.weight"] = shape
        shapes[f"{name}.bias"] = shape[:1]

    model = "encoder.original_model"
    shapes[f"{model}.conv_stem.weight"] = (stem, 3, 3, 3)
    norm(f"{model}.bn1", stem)
    inside = stem
    for stage, ((blocks, kernel), outside) in enumerate(zip(STAGES, stages, strict=True)):
        for number in range(blocks):
            block, wide = f"{model}.blocks.{stage}.{number}", inside if stage == 0 else 6 * inside
            at = 1
            if stage > 0:
                shapes[f"{block}.conv_pw.weight"] = (wide, inside, 1, 1)
                norm(f"{block}.bn{at}", wide)
                at += 1
            shapes[f"{block}.conv_dw.weight"] = (wide, 1, kernel, kernel)
            norm(f"{block}.bn{at}", wide)
            dense(f"{block}.se.conv_reduce", inside // 4, wide, 1, 1)
            dense(f"{block}.se.conv_expand", wide, inside // 4, 1, 1)
            shapes[f"{block}.{'conv_pwl' if stage else 'conv_pw'}.weight"] = (outside, wide, 1, 1)
            norm(f"{block}.bn{at + 1}", outside)
            inside = outside
    shapes[f"{model}.conv_head.weight"] = (head, inside, 1, 1)
    norm(f"{model}.bn2", head)
    dense("decoder.conv2", head, head, 1, 1)
    inside = head
    for number, (width, skip) in enumerate(zip(finer, (stages[4], *stages[2::-1]), strict=True), start=1):
        net = f"decoder.up{number}._net"
        dense(f"{net}.0", width, inside + skip, 3, 3)
        norm(f"{net}.1", width)
        dense(f"{net}.3", width, width, 3, 3)
        norm(f"{net}.4", width)
        inside = width
    dense("decoder.out_conv_res8", 4, finer[1], 3, 3)
    for resolution, width in zip((4, 2, 1), finer[1:], strict=True):
        name = f"decoder.out_conv_res{resolution}"
        dense(f"{name}.0", hidden, width + 4, 1)
        dense(f"{name}.2", hidden, hidden, 1)
        dense(f"{name}.4", hidden, hidden, 1)
        dense(f"{name}.6", 4, hidden, 1)
    return shapes


def filled_in(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Weights that keep the spread of what goes through, and normalisations that change something."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            weights[name] = torch.tensor(7)
        elif name.endswith("running_var") or (len(shape) == 1 and name.endswith(".weight")):
            weights[name] = torch.rand(shape, generator=generator) + 0.5
        elif len(shape) == 1:
            weights[name] = torch.randn(shape, generator=generator) * 0.2
        else:
            fan_in = torch.Size(shape[1:]).numel()
            weights[name] = torch.empty(shape).uniform_(-1, 1, generator=generator).mul_((3 / fan_in) ** 0.5)
    # Guesses that depend on the picture more than on what all pixels have in common.
    for name, tensor in weights.items():
        if name.startswith("decoder.out_conv") and tensor.ndim > 1:
            weights[name] = 4 * (tensor - tensor.mean(1, keepdim=True))
        elif name.startswith("decoder.out_conv"):
            weights[name] = tensor * 0.1
    return weights


def narrow_normalbae() -> dict[str, Tensor]:
    return filled_in(normalbae_shapes(8, (8, 8, 8, 16, 16, 16, 16), 32, (32, 24, 16, 16), 16))


PUBLISHED = normalbae_shapes(48, (24, 40, 64, 128, 176, 304, 512), 2048, (1024, 512, 256, 128), 128)
"""Of scannet.pt."""
