"""The networks of preprocessors in the host: found in its folders, kept a while, and put on its device when they are used."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import folder_paths
import torch
from torch import Tensor

from ..checkpoints.cache import FileStamp, WeakCache, file_stamp
from ..checkpoints.read import open_checkpoint
from ..preprocessors import PreprocessorError
from ..preprocessors.annotators import BY_ID, Annotator
from ..preprocessors.networks.network import Network
from ..preprocessors.sizing import Size
from ..preprocessors.through import padded_size

FOLDER = "annotators"
"""The host's models folder of these files."""
OTHER_PACKS = ("comfyui_controlnet_aux", "comfyui-controlnet-aux", "ComfyUI-ControlNet-Aux")
"""Names under which comfyui_controlnet_aux is installed: its ckpts folder mirrors the hub's repositories."""
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


def networks_for(identifiers: Sequence[str], image_bhwc: Tensor, resolution: int) -> Ready:
    """These annotators' networks on the host's device, and how many frames to give them at once. Raises PreprocessorError."""
    held = {identifier: held_network(BY_ID[identifier]) for identifier in identifiers}
    device = comfy.model_management.get_torch_device()
    # What is no picture is the function's to refuse.
    is_picture = image_bhwc.ndim == 4 and 0 not in image_bhwc.shape
    size = padded_size(Size(*image_bhwc.shape[1:3]), resolution) if is_picture else Size(1, 1)
    frame = max(
        BY_ID[identifier].values_per_pixel * size.height * size.width * one.dtype.itemsize
        for identifier, one in held.items()
    )
    comfy.model_management.load_models_gpu([one.patcher for one in held.values()], memory_required=frame)
    free = comfy.model_management.get_free_memory(device)
    networks = {identifier: Network(one.patcher.model, device, one.dtype) for identifier, one in held.items()}
    return Ready(networks, max(1, int(free * SHARE / frame)))


def held_network(annotator: Annotator) -> Held:
    """The network of an annotator's file, loaded unless it is in memory. Raises PreprocessorError or CheckpointError."""
    path, management = find(annotator), comfy.model_management
    device = management.get_torch_device()
    supported = SUPPORTED if annotator.half else [torch.float32]
    dtype = management.unet_dtype(device, annotator.bytes // 4, supported, torch.float32)
    # The host's switches for diffusion models can ask for what no annotator is made for, as float8.
    dtype = dtype if dtype in supported else torch.float32
    manual_cast_dtype = management.unet_manual_cast(dtype, device)

    def load() -> tuple[Any, torch.dtype]:
        checkpoint = open_checkpoint(path)
        module = annotator.build(
            checkpoint.fetch(checkpoint.tensors),
            file=path.name,
            operations=comfy.ops.pick_operations(dtype, manual_cast_dtype),
            dtype=dtype,
        )
        offload_device = management.unet_offload_device()
        patcher = comfy.model_patcher.CoreModelPatcher(module.to(offload_device), device, offload_device)
        return patcher, manual_cast_dtype or dtype

    key = (file_stamp(path), annotator.id, dtype, device)
    patcher, computes = LOADED.get(key, load)
    RECENT[key] = patcher
    RECENT.move_to_end(key)
    while len(RECENT) > KEPT:
        RECENT.popitem(last=False)
    return Held(patcher, computes)


def find(annotator: Annotator) -> Path:
    """An annotator's file in the host's folder of them or in another pack's. Raises PreprocessorError that says where to get it."""
    for name in (str(Path(annotator.file).with_suffix(".safetensors")), annotator.file):
        found = folder_paths.get_full_path(FOLDER, name)
        if found is not None:
            return Path(found)
    for place in other_places(annotator):
        if place.is_file():
            return place
    raise PreprocessorError(
        f"{annotator.id}: found no file '{annotator.file}' in models/{FOLDER}, but the network's weights"
        f"{size_in_words(annotator.bytes)} were expected there ({annotator.licence}: {annotator.commercial}); "
        f"download {annotator.address} into {target_folder()}."
    )


def other_places(annotator: Annotator) -> list[Path]:
    """Where the file may lie that another pack downloaded."""
    roots = [Path(folder_paths.models_dir) / "controlnet_aux"]
    for custom_nodes in folder_paths.get_folder_paths("custom_nodes"):
        roots += [Path(custom_nodes) / pack / "ckpts" for pack in OTHER_PACKS]
    return [root / annotator.repository / annotator.file for root in roots]


def target_folder() -> Path:
    folders = folder_paths.folder_names_and_paths.get(FOLDER)
    return Path(folders[0][0]) if folders and folders[0] else Path(folder_paths.models_dir) / FOLDER


def size_in_words(size: int) -> str:
    return f" of {size:,} bytes" if size else ""
