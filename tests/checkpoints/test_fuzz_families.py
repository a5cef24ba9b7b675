"""Damaged files of every family that loads: our error or a sound network, never another exception."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("comfy")

import safetensors.torch

from control_composer.checkpoints import CheckpointError, open_control
from control_composer.checkpoints.adapter import AdapterHyperparameters, adapter_shapes
from control_composer.checkpoints.controlnext import ControlNeXtHyperparameters, controlnext_shapes
from control_composer.checkpoints.ctrlora import base_shapes, difference_shapes, lora_shapes
from control_composer.checkpoints.encoder import NO_ATTENTION, EncoderHyperparameters, expected_shapes
from control_composer.checkpoints.families.union import UnionHyperparameters, union_shapes
from control_composer.checkpoints.lllite import LLLiteHyperparameters, lllite_shapes
from control_composer.checkpoints.pair import pair
from control_composer.checkpoints.xs import XSHyperparameters, xs_shapes
from control_composer.tests.checkpoints.lllite_reference import module
from control_composer.tests.checkpoints.xs_names import named, original_modules

MUTATIONS = 120
SIZES: tuple[Any, ...] = (0, 1, 2, 3, 5, 64, 320, 2**20, 2**40, 2**70, -1, None, "4", [3])
SMALL = EncoderHyperparameters(4, 32, 3, (1, 1), (1, 2), (NO_ATTENTION, 1), 1, 24, False, None)
UNION = UnionHyperparameters(4, 320, 3, (1,), (1,), (NO_ATTENTION,), NO_ATTENTION, None, True, None, 6)
FULL = AdapterHyperparameters(light=False, in_channels=64, channels=(4, 8, 8, 8), res_blocks=1, convolution=True)
LIGHT = AdapterHyperparameters(light=True, in_channels=64, channels=(4, 8, 8, 8), res_blocks=1)
LLLITE = LLLiteHyperparameters((module("input_blocks_4"), module("middle_block", depth=3, convolution=True)))

CONTROLNEXT = ControlNeXtHyperparameters("August", 3, (8, 6, 16), (16, 32), 32, 48, 32)
XS = XSHyperparameters(4, 3, (2, 2, 3, 4), (4, 8), (8, 16), (NO_ATTENTION,) * 2 + (1, 1), 1, (4, 8), 8, True, True)


def tensors_of(family: str) -> dict[str, Tensor]:
    if family == "union":
        shapes = expected_shapes(UNION) | union_shapes(UNION)
    elif family == "lllite":
        shapes = lllite_shapes(LLLITE)
    elif family == "xs":
        shapes = xs_shapes(XS)
    elif family == "xs, original":
        shapes = named(xs_shapes(XS), original_modules(2))
    elif family == "ctrlora":
        shapes = lora_shapes(SMALL, 2)
    elif family == "ctrlora base":
        shapes = base_shapes(SMALL) | difference_shapes(SMALL, 2)
    elif family == "controlnext":
        shapes = controlnext_shapes(CONTROLNEXT)
    elif family in ("full", "light"):
        shapes = adapter_shapes(FULL if family == "full" else LIGHT)
    elif family == "diffusers adapter":
        shapes = {
            f"adapter.{name.replace('.body.', '.resnets.')}": shape for name, shape in adapter_shapes(LIGHT).items()
        }
    else:
        shapes = expected_shapes(SMALL)
    tensors = {name: torch.zeros(shape, dtype=torch.float16) for name, shape in shapes.items()}
    if family == "difference":
        tensors["difference"] = torch.zeros(1)
    if family == "control lora":
        tensors["lora_controlnet"] = torch.zeros(1)
        for name in [name for name in tensors if name.startswith("input_blocks") and tensors[name].ndim > 1]:
            weight, module = tensors.pop(name), name.removesuffix(".weight")
            tensors[f"{module}.down"] = torch.zeros(2, *weight.shape[1:])
            tensors[f"{module}.up"] = torch.zeros(weight.shape[0], 2, *(1,) * (weight.ndim - 2))
    return tensors


def resized(entry: dict[str, Any], dice: random.Random) -> None:
    """Another shape with as many numbers, so that the header agrees with the data: nothing before the families refuses it."""
    shape, place = entry["shape"], dice.randrange(len(entry["shape"]))
    entry["shape"] = dice.choice(
        (
            shape[::-1],
            [*shape, 1],
            [1, *shape],
            [shape[0] * 2, *shape[1:-1], shape[-1] // 2] if shape[-1] % 2 == 0 and len(shape) > 1 else shape[::-1],
            [*shape[:place], dice.choice(SIZES), *shape[place + 1 :]],
        )
    )


@pytest.mark.parametrize(
    "family",
    [
        "union",
        "lllite",
        "controlnext",
        "ctrlora",
        "ctrlora base",
        "xs",
        "xs, original",
        "full",
        "light",
        "diffusers adapter",
        "control lora",
        "difference",
    ],
)
def test_headers_with_other_shapes_and_names(family: str, tmp_path: Path) -> None:
    content = safetensors.torch.save(tensors_of(family), {"num_head_channels": "16", "time_embedding_mix": "1"})
    end = 8 + struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8:end]), content[end:]
    path, dice, refused = tmp_path / "fuzzed.safetensors", random.Random(family), 0
    base = None
    if family == "ctrlora":
        other = tmp_path / "base.safetensors"
        safetensors.torch.save_file(tensors_of("ctrlora base"), other, {"num_head_channels": "16"})
        base = open_control(other)
    for _ in range(MUTATIONS):
        mutated = json.loads(json.dumps(header))
        for name in dice.sample([name for name in mutated if name != "__metadata__"], dice.choice((1, 1, 3))):
            how = dice.choice(("shape", "shape", "shape", "gone", "name"))
            if how == "shape":
                resized(mutated[name], dice)
            elif how == "gone":
                del mutated[name]
            else:
                parts = name.split(".")
                parts[dice.randrange(len(parts))] = dice.choice(
                    ("9" * 5000, "0", "00", "7", "²", "", "up", "down", "body")
                )
                mutated[".".join(parts)] = mutated.pop(name)
        text = json.dumps(mutated).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + data)
        try:
            pair(open_control(path), base).load()
        except CheckpointError as error:
            assert len(str(error)) < 2000
            refused += 1
    assert refused > MUTATIONS / 2
