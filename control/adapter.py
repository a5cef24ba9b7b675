"""The host's T2I-Adapter control, with its network in the host's memory management."""

from __future__ import annotations

import copy
from typing import Any

import comfy.controlnet
import comfy.model_management
import comfy.model_patcher
import torch
from torch import Tensor


class Placed:
    """A network that stands where its patcher puts it, in its own dtype, for a caller that moves and casts it around each use.

    `comfy.controlnet.T2IAdapter` does so, behind the back of the host's memory management.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self.unshuffle_amount = module.unshuffle_amount

    def to(self, *_: Any) -> Placed:
        return self

    def cpu(self) -> Placed:
        return self

    def __call__(self, hint_bchw: Tensor) -> dict[str, list[Tensor | None]]:
        """The lists of residuals, in the dtype of the hint."""
        parameter = next(self.module.parameters())
        found = self.module(hint_bchw.to(parameter.device, parameter.dtype))
        return {place: [None if x is None else x.to(hint_bchw) for x in found[place]] for place in found}


class AdapterControl(comfy.controlnet.T2IAdapter):
    """`comfy.controlnet.T2IAdapter` around a patcher's network (`comfy.t2i_adapter.adapter`)."""

    multigpu_clones: dict[torch.device, Any]

    def __init__(self, patcher: Any, compression_ratio: int = 8, upscale_algorithm: str = "nearest-exact") -> None:
        super().__init__(
            Placed(patcher.model),
            patcher.model.input_channels,
            compression_ratio,
            upscale_algorithm,
            device=patcher.load_device,
        )
        self.patcher = patcher

    def copy(self) -> AdapterControl:
        twin = AdapterControl(self.patcher, self.compression_ratio, self.upscale_algorithm)
        self.copy_to(twin)
        return twin

    def get_models(self) -> list[Any]:
        models: list[Any] = super().get_models()
        return [*models, self.patcher]

    def deepclone_multigpu(self, load_device: torch.device, autoregister: bool = False) -> AdapterControl:
        """A copy whose network lives on another device."""
        patcher = comfy.model_patcher.ModelPatcher(
            copy.deepcopy(self.patcher.model),
            load_device=load_device,
            offload_device=comfy.model_management.unet_offload_device(),
        )
        twin = AdapterControl(patcher, self.compression_ratio, self.upscale_algorithm)
        self.copy_to(twin)
        if autoregister:
            self.multigpu_clones[load_device] = twin
        return twin
