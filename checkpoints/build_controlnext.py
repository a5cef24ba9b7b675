"""ControlNeXt's network with a file's weights, in the host's hands."""

from __future__ import annotations

from collections.abc import Mapping

import comfy.model_management
import comfy.ops
from torch import Tensor

from .build import INFERENCE_DTYPES, NOWHERE, adopt
from .family import Built, Match
from .networks.controlnext import ControlNeXt


def build_controlnext(match: Match, tensors: Mapping[str, Tensor]) -> Built:
    """On the offload device with these weights, every one of them accounted for; dtype and devices as the host chooses them for a ControlNet."""
    management = comfy.model_management
    dtype = management.unet_dtype(model_params=-1, supported_dtypes=INFERENCE_DTYPES, weight_dtype=match.dtype)
    load_device, offload_device = management.get_torch_device(), management.unet_offload_device()
    manual_cast_dtype = management.unet_manual_cast(dtype, load_device)
    operations = comfy.ops.pick_operations(dtype, manual_cast_dtype)
    module = ControlNeXt(match.hyperparameters, operations, dtype=dtype, device=NOWHERE)
    adopt(module, tensors, dtype, offload_device)
    return Built(module.eval(), dtype, manual_cast_dtype, load_device, offload_device)
