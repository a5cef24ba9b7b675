"""ControlNet-LLLite's modules with a file's weights, in the host's operations."""

from __future__ import annotations

from collections.abc import Mapping

import comfy.model_management
import comfy.ops
from torch import Tensor

from .build import INFERENCE_DTYPES, NOWHERE, adopt
from .family import Built, Match
from .lllite import LLLiteHyperparameters
from .networks.lllite import LLLite, from_file


def build_lllite(match: Match, tensors: Mapping[str, Tensor]) -> Built:
    """An `LLLite` on the offload device with these weights, every one of them accounted for."""
    net: LLLiteHyperparameters = match.hyperparameters
    management = comfy.model_management
    dtype = management.unet_dtype(model_params=-1, supported_dtypes=INFERENCE_DTYPES, weight_dtype=match.dtype)
    load_device, offload_device = management.get_torch_device(), management.unet_offload_device()
    manual_cast_dtype = management.unet_manual_cast(dtype, load_device)
    operations = comfy.ops.pick_operations(dtype, manual_cast_dtype)
    module = LLLite(net, operations, dtype=dtype, device=NOWHERE)
    adopt(module, from_file(net, tensors), dtype, offload_device)
    return Built(module.eval(), dtype, manual_cast_dtype, load_device, offload_device)
