"""SparseCtrl's network with a file's weights: the host's ControlNet with a hint network of its own and motion modules beside it."""

from __future__ import annotations

from collections.abc import Mapping

import comfy.cldm.cldm
import comfy.model_management
import comfy.ops
from comfy.ldm.modules.diffusionmodules.openaimodel import TimestepEmbedSequential
from torch import Tensor
from torch.nn import ModuleList

from .build import INFERENCE_DTYPES, NOWHERE, adopt, encoder_arguments
from .family import Built, Match
from .networks.motion import MotionModule
from .sparsectrl import MOTION_HEADS, SparseHyperparameters, motion_widths


def build_sparse(match: Match, tensors: Mapping[str, Tensor]) -> Built:
    """A `comfy.cldm.cldm.ControlNet` with `motion_modules`, one behind each ResBlock, and `frames`, the most that these can tell apart."""
    net: SparseHyperparameters = match.hyperparameters
    management = comfy.model_management
    dtype = management.unet_dtype(model_params=-1, supported_dtypes=INFERENCE_DTYPES, weight_dtype=match.dtype)
    load_device, offload_device = management.get_torch_device(), management.unet_offload_device()
    manual_cast_dtype = management.unet_manual_cast(dtype, load_device)
    operations = comfy.ops.pick_operations(dtype, manual_cast_dtype)

    arguments = encoder_arguments(match) | {"hint_channels": net.hint_channels + 1}
    module = comfy.cldm.cldm.ControlNet(**arguments, operations=operations, dtype=dtype, device=NOWHERE)
    if net.latent_hint:
        module.input_hint_block = TimestepEmbedSequential(
            operations.Conv2d(net.in_channels + 1, net.model_channels, 3, padding=1, dtype=dtype, device=NOWHERE)
        )
    module.motion_modules = ModuleList(
        [
            MotionModule(channels, MOTION_HEADS, net.motion_depth, operations, dtype=dtype, device=NOWHERE)
            for channels in motion_widths(net)
        ]
    )
    module.frames = net.frames
    module.latent_hint = net.latent_hint
    adopt(module, tensors, dtype, offload_device)
    return Built(module.eval(), dtype, manual_cast_dtype, load_device, offload_device)
