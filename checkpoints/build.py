"""The host's network with a file's weights: class, operations, dtype and devices as the stock loader chooses them.

Mirrors `comfy.controlnet.load_controlnet_state_dict`, so that pictures are those of the stock loader.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import comfy.cldm.cldm
import comfy.model_management
import comfy.ops
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import TimestepEmbedSequential
from torch import Tensor

from .encoder import HINT_WIDTHS, EncoderHyperparameters, ResBlock, hint_convolutions
from .errors import TooLargeError
from .family import Built, Match
from .memory import empty

NOWHERE = torch.device("meta")
"""Where modules have shapes and no numbers."""

INFERENCE_DTYPES = [torch.float16, torch.bfloat16, torch.float32]


def build_encoder(match: Match, tensors: Mapping[str, Tensor], *, diffusers: bool, hint_network: bool = True) -> Built:
    """A `comfy.cldm.cldm.ControlNet` on the offload device with these weights, every one of them accounted for."""
    management = comfy.model_management
    # The stock loader offers a file in diffusers layout only the device's own dtype; followed here, or pictures would differ.
    supported = [management.unet_dtype()] if diffusers else INFERENCE_DTYPES
    dtype = management.unet_dtype(model_params=-1, supported_dtypes=supported, weight_dtype=match.dtype)
    load_device, offload_device = management.get_torch_device(), management.unet_offload_device()
    manual_cast_dtype = management.unet_manual_cast(dtype, load_device)
    operations = comfy.ops.pick_operations(dtype, manual_cast_dtype)

    module = comfy.cldm.cldm.ControlNet(**encoder_arguments(match), operations=operations, dtype=dtype, device=NOWHERE)
    _add_bare_projections(module, match, operations=operations, dtype=dtype, device=NOWHERE)
    if not hint_network:
        del module.input_hint_block
    if match.hyperparameters.hint_widths != HINT_WIDTHS:
        module.input_hint_block = _hint_network(match.hyperparameters, operations, dtype=dtype, device=NOWHERE)
    adopt(module, tensors, dtype, offload_device)
    return Built(module.eval(), dtype, manual_cast_dtype, load_device, offload_device)


def adopt(module: Any, tensors: Mapping[str, Tensor], dtype: torch.dtype, device: torch.device) -> None:
    """Makes these tensors the weights of a module that was built on the device NOWHERE.

    A tensor of the right dtype and device becomes the weight itself, so that weights mapped from a file are not copied; each of the others is
    copied alone. Raises RuntimeError where names or shapes are not those of the module, and TooLargeError.
    """
    module.requires_grad_(False)
    weights: dict[str, Tensor] = {}
    places = set()
    for name, tensor in tensors.items():
        check_range(name, tensor, dtype)
        weights[name] = _at_home(tensor, dtype, device, copy=tensor.data_ptr() in places)
        places.add(tensor.data_ptr())
    module.load_state_dict(weights, strict=True, assign=True)
    assert not any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())), (
        "the file gives every weight"
    )


def check_range(name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    """Raises TooLargeError for a number that would become infinite in `dtype`."""
    highest = torch.finfo(dtype).max
    if tensor.numel() == 0 or highest >= torch.finfo(tensor.dtype).max:
        return
    low, high = (float(extreme) for extreme in torch.aminmax(tensor))
    if max(-low, high) > highest:
        raise TooLargeError(name, low if -low > high else high, dtype)


def _at_home(tensor: Tensor, dtype: torch.dtype, device: torch.device, copy: bool) -> Tensor:
    """The tensor itself where it can be a weight: by itself in memory, at an address that suits its dtype."""
    alone = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
    if alone and not copy and tensor.data_ptr() % tensor.dtype.itemsize == 0 and tensor.dtype == dtype:
        return tensor.to(device)
    if device.type != "cpu":
        return tensor.to(device, dtype, copy=True, memory_format=torch.contiguous_format)
    return empty(tuple(tensor.shape), dtype).copy_(tensor)


def encoder_arguments(match: Match) -> dict[str, Any]:
    """What the host's class wants to know of an encoder."""
    net, heads = match.hyperparameters, match.heads
    return {
        "image_size": 32,
        "in_channels": net.in_channels,
        "model_channels": net.model_channels,
        "hint_channels": net.hint_channels,
        "num_res_blocks": list(net.num_res_blocks),
        "channel_mult": list(net.channel_mult),
        "num_classes": None if net.adm_in_channels is None else "sequential",
        "adm_in_channels": net.adm_in_channels,
        "union_controlnet_num_control_type": getattr(net, "control_types", None),
        "num_heads": heads.count or -1,
        "num_head_channels": heads.width or -1,
        "use_spatial_transformer": True,
        "transformer_depth": list(net.transformer_depth),
        "transformer_depth_middle": net.transformer_depth_middle,
        # The host wants a number even where nothing reads text.
        "context_dim": net.context_dim or 1,
        "legacy": False,
        "use_linear_in_transformer": net.use_linear_in_transformer,
        # SD2's attention overflows in half precision; the host keeps it in full (supported_models.SD20).
        "attn_precision": torch.float32 if match.base == "SD2" else None,
    }


def _add_bare_projections(module: Any, match: Match, **factory: Any) -> None:
    """Attention modules without transformer blocks (depth 0), which the host's class leaves out of the encoder."""
    net = match.hyperparameters
    for index, block in enumerate(net.blocks(), start=1):
        if isinstance(block, ResBlock) and block.depth == 0:
            module.input_blocks[index].append(_bare_projections(net, block.out_channels, factory))


def _hint_network(net: EncoderHyperparameters, operations: Any, **factory: Any) -> Any:
    """A hint network of other widths than those of the host's class, which has no argument for them."""
    layers: list[torch.nn.Module] = []
    for index, (in_channels, out_channels) in enumerate(hint_convolutions(net)):
        stride = 2 if index in (2, 4, 6) else 1
        layers.append(operations.Conv2d(in_channels, out_channels, 3, padding=1, stride=stride, **factory))
        layers.append(torch.nn.SiLU())
    return TimestepEmbedSequential(*layers[:-1])


def _bare_projections(net: EncoderHyperparameters, channels: int, factory: dict[str, Any]) -> Any:
    return SpatialTransformer(
        channels, 1, channels, depth=0, context_dim=1, use_linear=net.use_linear_in_transformer, **factory
    )
