"""The UNet weights that come with a ControlNeXt, as patches of a model: they add up with LoRAs, and the host takes them back when it is done.

Published are `attn2.to_out` of every attention: as the trained weights themselves (the files for SD1.5) or as what training added to those of
the base (those for SDXL, `load_weight_increasement` in dvlab-research/ControlNeXt). Nothing in a file tells which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import comfy.model_management
import comfy.utils
import torch
from torch import Tensor

from .canonical import Canonical, canonical
from .detect import find_family
from .difference import PREFIX
from .encoder_shapes import quoted
from .errors import AmbiguousWeightsError, BadWeightsError, BaseMismatchError, RefusedFamilyError
from .families import FAMILIES
from .families.controlnext import LOAD_NODE, UNET_WEIGHTS
from .load import NEW_FILE, first_bad
from .mapping import may_stay_mapped
from .read import open_checkpoint
from .tensors import Checkpoint

Holds = Literal["weights", "differences"]
KINDS: tuple[Holds, ...] = ("weights", "differences")
# How much of a model's weights is in those of the file, by projection: near 1 in weights trained from it or from its kin, near 0 in differences.
WEIGHTS_FROM, DIFFERENCES_TO = 0.7, 0.3
LOOKED_AT = 8
"""Tensors that are compared, evenly over the UNet."""


@dataclass(eq=False)
class UnetWeights:
    """What a file adds to the weights of one model, by the host's names; `model` is that `comfy.model_base.BaseModel`."""

    name: str
    model: Any
    differences: Mapping[str, Tensor]
    holds: Holds
    told: bool
    """Whether the comparison with the model told what it holds."""


def open_unet_weights(path: Path, model: Any, base: str, holds: Holds | None = None) -> UnetWeights:
    """Reads a file for a MODEL (`comfy.model_patcher.ModelPatcher`) of the base so named, whose own weights stay as they are.

    Raises CheckpointError.
    """
    checkpoint = open_checkpoint(path)
    file = canonical(checkpoint)
    check_family(file)
    originals = model.get_key_patches(PREFIX)
    names = host_names(file, model, originals, base)
    tensors = fetched(checkpoint, file, names)
    found = holds or told_by_model(path, tensors, originals)
    if found == "weights":
        tensors = {key: minus_original(tensor, originals[key][0]) for key, tensor in tensors.items()}
    return UnetWeights(path.name, model.model, tensors, found, holds is None)


def check_family(file: Canonical) -> None:
    """Raises RefusedFamilyError for anything but a part of a UNet."""
    family = find_family(file, FAMILIES)
    if family is UNET_WEIGHTS:
        return
    if family is None:
        found = f"is an unknown file whose first keys are {quoted(list(file.tensors))}"
    else:
        found = f"is {family.name}"
    remedy = "choose the larger of the two files of a ControlNeXt here"
    if family is not None and family.loader is not None:
        remedy = f"load it with the node '{LOAD_NODE}', and {remedy}"
    elif family is not None and family.name == "a LoRA":
        remedy = f"load it with the stock node 'Load LoRA', and {remedy}"
    raise RefusedFamilyError(
        file.path, found=found, expected="the UNet weights of a ControlNeXt were expected", remedy=remedy
    )


def host_names(file: Canonical, model: Any, originals: Mapping[str, Any], base: str) -> dict[str, str]:
    """The host's name -> the file's, for each tensor, all of them in the model in the same shape. Raises BaseMismatchError."""
    by_diffusers = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    names = {}
    for name, info in file.tensors.items():
        key = PREFIX + by_diffusers.get(name, name)
        there = tuple(originals[key][0][0].shape) if key in originals else None
        if there != info.shape:
            raise BaseMismatchError(
                file.path,
                found=f"changes the weight '{name}' of the shape {list(info.shape)}",
                expected=f"the connected model of the base {base} has {'no such weight' if there is None else f'{list(there)} there'}",
                remedy="connect a model that it was made for, or choose the weights made for the connected one",
            )
        names[key] = info.name
    return names


def fetched(checkpoint: Checkpoint, file: Canonical, names: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors by the host's names, all of them finite. Raises BadWeightsError or UnreadableFileError."""
    stored = checkpoint.fetch(names.values(), may_stay_mapped(checkpoint.path))
    bad = first_bad(stored)
    if bad is not None:
        raise BadWeightsError(
            file.path,
            found=f"holds {bad[1]} in its tensor '{bad[0]}'",
            expected="finite numbers were expected",
            remedy=NEW_FILE,
        )
    return {key: stored[name] for key, name in names.items()}


def told_by_model(path: Path, tensors: Mapping[str, Tensor], originals: Mapping[str, Any]) -> Holds:
    """Whether the tensors are the model's weights, trained on, or differences to them. Raises AmbiguousWeightsError."""
    matrices = [key for key, tensor in tensors.items() if tensor.ndim > 1] or list(tensors)
    product = square = 0.0
    for key in matrices[:: -(-len(matrices) // LOOKED_AT)]:
        weight = original(originals[key][0]).flatten()
        product += float(torch.dot(tensors[key].float().flatten(), weight))
        square += float(torch.dot(weight, weight))
    share = product / square if square else 0.0
    if share >= WEIGHTS_FROM:
        return "weights"
    if abs(share) <= DIFFERENCES_TO:
        return "differences"
    raise AmbiguousWeightsError(
        path,
        found=f"has {share:.0%} of the connected model's weights in it",
        expected="nearly all (weights) or nearly nothing (differences to weights) was expected",
        remedy="set 'holds' to weights or differences, as its author says, or connect a model nearer to the one that it was trained from",
    )


def original(entry: Any) -> Tensor:
    """A weight of the model without its patches, as the host keeps it: the weight with its conversion."""
    weight, convert = entry
    copied = comfy.model_management.cast_to_device(weight, torch.device("cpu"), torch.float32, copy=True)
    found: Tensor = convert(copied, inplace=True)
    return found


def minus_original(tensor: Tensor, entry: Any) -> Tensor:
    """The difference, in the file's dtype; float8 holds none of use."""
    dtype = tensor.dtype if tensor.dtype.itemsize > 1 else torch.float16
    return (tensor.float() - original(entry)).to(dtype)
