"""Whether a network's weights lie on the device and stay where they are, which a CUDA graph of it takes for granted."""

from __future__ import annotations

from typing import Any

import comfy.controlnet
import comfy.ldm.modules.attention
import torch
from torch import Tensor

RECORDABLE_ATTENTION = frozenset({"attention_basic", "attention_pytorch", "attention_xformers", "attention_flash"})
"""The host's attention functions that only launch kernels. Split and sub-quadratic attention ask for the free memory and catch its lack; of the others
nobody has shown it yet."""

OF_THE_MODEL = (comfy.controlnet.ControlLoraOps.Linear, comfy.controlnet.ControlLoraOps.Conv2d)
FUNCTIONS = ("weight_function", "bias_function", "weight_lowvram_function", "bias_lowvram_function")
"""Where the host hangs what it does with a weight each time it is used."""
HOOKS = ("_forward_hooks", "_forward_pre_hooks")

MOVED_BY_HOST = "the host moves its weights while it runs"
NOT_LOADED = "it is not loaded"
OFFLOADED = "part of its weights is offloaded"
PATCHED = "its weights are patched while it runs"
MODELS_OWN = "its weights belong to the model"
QUANTISED = "its weights are quantised"
CHANGED = "another extension has changed its modules"


def attention_name() -> str:
    """The name of the attention function that the host has chosen, or that another extension has put in its place."""
    chosen = comfy.ldm.modules.attention.optimized_attention
    return str(getattr(chosen, "__name__", type(chosen).__name__))


def why_not_resident(patcher: Any, module: Any, device: torch.device) -> str:
    """Why a graph of `module`, which `patcher` loads, cannot be kept; empty where all weights lie on `device` and nobody moves them step by step.

    What moves them between runs, or frees memory in a run, is not seen here: compare a `Watch` at each call.
    """
    if patcher.is_dynamic():
        return MOVED_BY_HOST
    if patcher.loaded_size() == 0 or patcher.current_loaded_device() != device:
        return NOT_LOADED
    if module.model_lowvram:
        return OFFLOADED
    for part in module.modules():
        state = part.__dict__
        if "_v" in state:
            return MOVED_BY_HOST
        if isinstance(part, OF_THE_MODEL):
            return MODELS_OWN
        if any(getattr(part, name, None) for name in FUNCTIONS):
            return PATCHED
        if "forward" in state or any(state[name] for name in HOOKS):
            return CHANGED
        for tensor in (*state["_parameters"].values(), *state["_buffers"].values()):
            if tensor is None:
                continue
            if type(tensor) not in (Tensor, torch.nn.Parameter):
                return QUANTISED
            if tensor.device != device:
                return OFFLOADED
    return ""


def facts(tensor: Tensor) -> tuple[Any, ...]:
    """Where a tensor lies and how it is read."""
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


class Watch:
    """What a graph of a module has written into it: address, dtype, shape and strides of every weight, and which modules there are.

    It holds the parts of the module, never the module itself, so a dictionary with weak keys can hold it for its module.
    """

    def __init__(self, module: Any) -> None:
        self._root = module.__dict__
        self._uuid = self._root.get("current_weight_patches_uuid")
        self._states = [part.__dict__ for part in module.modules()]
        self._parts = [
            (state["_modules"], name, part) for state in self._states for name, part in state["_modules"].items()
        ]
        self._weights = [
            (tensors, name, None if tensor is None else facts(tensor))
            for state in self._states
            for tensors in (state["_parameters"], state["_buffers"])
            for name, tensor in tensors.items()
        ]

    def unchanged(self) -> bool:
        """Whether all of it is as it was when the watch was set. Reads nothing from the device."""
        if self._root.get("current_weight_patches_uuid") != self._uuid:
            return False
        for tensors, name, before in self._weights:
            tensor = tensors.get(name)
            if (None if tensor is None else facts(tensor)) != before:
                return False
        for parts, name, part in self._parts:
            if parts.get(name) is not part:
                return False
        for state in self._states:
            if "forward" in state or state["_forward_hooks"] or state["_forward_pre_hooks"]:
                return False
            if state.get("weight_function") or state.get("bias_function"):
                return False
        return True
