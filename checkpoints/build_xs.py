"""ControlNet-XS's control stream with a file's weights, in the host's operations."""

from __future__ import annotations

from collections.abc import Mapping

import comfy.model_management
import comfy.ops
import torch
from torch import Tensor

from .build import INFERENCE_DTYPES, NOWHERE, adopt
from .family import Built, Match
from .networks.xs import ControlStream


def build_xs(match: Match, tensors: Mapping[str, Tensor]) -> Built:
    """A `ControlStream` on the offload device with these weights, every one of them accounted for."""
    management = comfy.model_management
    dtype = management.unet_dtype(model_params=-1, supported_dtypes=INFERENCE_DTYPES, weight_dtype=match.dtype)
    load_device, offload_device = management.get_torch_device(), management.unet_offload_device()
    manual_cast_dtype = management.unet_manual_cast(dtype, load_device)
    operations = comfy.ops.pick_operations(dtype, manual_cast_dtype)
    # SD2's attention overflows in half precision; the host keeps it in full (supported_models.SD20).
    attn_precision = torch.float32 if match.base == "SD2" else None
    found = match.hyperparameters
    module = ControlStream(found.net, found.settings, operations, attn_precision, dtype=dtype, device=NOWHERE)
    adopt(module, tensors, dtype, offload_device)
    return Built(module.eval(), dtype, manual_cast_dtype, load_device, offload_device)
