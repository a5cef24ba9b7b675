"""The host's T2I-Adapter network with a file's weights.

Mirrors `comfy.controlnet.load_t2i_adapter`, so that pictures are those of the stock loader.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import comfy.model_management
import torch
from comfy.t2i_adapter.adapter import Adapter, Adapter_light
from torch import Tensor

from .adapter import AdapterHyperparameters
from .build import NOWHERE, adopt
from .family import Built, Match


def adapter_module(net: AdapterHyperparameters) -> Any:
    """The host's network of these hyperparameters, on the device NOWHERE."""
    with NOWHERE:
        if net.light:
            return Adapter_light(channels=list(net.channels), nums_rb=net.res_blocks, cin=net.in_channels)
        return Adapter(
            channels=list(net.channels),
            nums_rb=net.res_blocks,
            cin=net.in_channels,
            ksize=net.kernel,
            sk=True,
            use_conv=net.convolution,
            xl=net.xl,
        )


def build_adapter(match: Match, tensors: Mapping[str, Tensor]) -> Built:
    """An adapter in single precision, in which the host's sampler works, with these weights, every one of them accounted for."""
    module = adapter_module(match.hyperparameters)
    load_device, offload_device = (
        comfy.model_management.get_torch_device(),
        comfy.model_management.unet_offload_device(),
    )
    adopt(module, tensors, torch.float32, offload_device)
    return Built(module.eval(), torch.float32, None, load_device, offload_device)
