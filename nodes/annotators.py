"""The networks of preprocessors in the host: kept a while, and put on its device when they are used."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import torch
from torch import nn

from ..checkpoints.cache import FileStamp, WeakCache, file_stamp
from ..checkpoints.read import open_checkpoint
from ..preprocessors.annotators import BY_ID, Annotator
from ..preprocessors.networks.network import Network
from ..preprocessors.sizing import Size
from .annotator_files import find, weights_of

KEPT = 4
"""How many networks stay in memory after use; the host moves them off its device whenever it needs the room."""
SHARE = 0.5
"""Of the free memory, what the numbers in a network may take."""
SUPPORTED = [torch.float16, torch.bfloat16, torch.float32]


class Held(NamedTuple):
    patcher: Any
    dtype: torch.dtype
    """In which it computes."""


class Ready(NamedTuple):
    networks: dict[str, Network]
    frames: int
    """How many frames of the picture fit into the device's free memory at once."""


# One network for one file while anything uses it, and the last few after that.
LOADED: WeakCache[Any, torch.dtype] = WeakCache()
RECENT: OrderedDict[tuple[FileStamp, str, torch.dtype, torch.device], Any] = OrderedDict()


def networks_for(identifiers: Sequence[str], size: Size) -> Ready:
    """These annotators' networks on the host's device, and how many pictures to give them at once that they see at this size. Raises
    PreprocessorError or CheckpointError.
    """
    held = {identifier: held_network(BY_ID[identifier]) for identifier in identifiers}
    device = comfy.model_management.get_torch_device()
    frame = max(
        BY_ID[identifier].values_per_pixel * size.height * size.width * one.dtype.itemsize
        for identifier, one in held.items()
    )
    # Whole: the host can stream only the layers of its own operations.
    comfy.model_management.load_models_gpu(
        [one.patcher for one in held.values()],
        memory_required=frame,
        force_full_load=any(BY_ID[identifier].reads == "path" for identifier in identifiers),
    )
    free = comfy.model_management.get_free_memory(device)
    networks = {identifier: Network(network_of(one.patcher), device, one.dtype) for identifier, one in held.items()}
    return Ready(networks, max(1, int(free * SHARE / frame)))


class Placeable(nn.Module):
    """Around a network whose own `device` cannot be set, as the host sets it."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network


def network_of(patcher: Any) -> nn.Module:
    model: nn.Module = patcher.model
    return model.network if isinstance(model, Placeable) else model


def held_network(annotator: Annotator) -> Held:
    """The network of an annotator's file, loaded unless it is in memory. Raises PreprocessorError or CheckpointError."""
    path, management = find(annotator), comfy.model_management
    device = management.get_torch_device()
    supported = SUPPORTED if annotator.half else [torch.float32]
    dtype = management.unet_dtype(device, annotator.bytes // 4, supported, torch.float32)
    # The host's switches for diffusion models can ask for what no annotator is made for, as float8.
    dtype = dtype if dtype in supported else torch.float32
    manual_cast_dtype = management.unet_manual_cast(dtype, device)
    computes = manual_cast_dtype or dtype

    def load() -> tuple[Any, torch.dtype]:
        offload_device = management.unet_offload_device()
        if annotator.reads == "path":
            placeable = Placeable(annotator.build(path, dtype=computes)).to(offload_device)
            return comfy.model_patcher.ModelPatcher(placeable, device, offload_device), computes
        module = from_tensors(annotator, path, dtype, manual_cast_dtype).to(offload_device)
        return comfy.model_patcher.CoreModelPatcher(module, device, offload_device), computes

    key = (file_stamp(weights_of(annotator, path)), annotator.id, dtype, device)
    patcher, computes = LOADED.get(key, load)
    RECENT[key] = patcher
    RECENT.move_to_end(key)
    while len(RECENT) > KEPT:
        RECENT.popitem(last=False)
    return Held(patcher, computes)


def from_tensors(
    annotator: Annotator, path: Path, dtype: torch.dtype, manual_cast_dtype: torch.dtype | None
) -> nn.Module:
    checkpoint = open_checkpoint(path)
    return annotator.build(
        checkpoint.fetch(checkpoint.tensors),
        file=path.name,
        operations=comfy.ops.pick_operations(dtype, manual_cast_dtype),
        dtype=dtype,
    )
