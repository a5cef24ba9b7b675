"""Whether a network's weights lie on the device and stay where they are, which a CUDA graph of it takes for granted."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter, is_
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


def facts(tensors: Sequence[Tensor]) -> tuple[list[object], ...]:
    """Where tensors lie and how they are read. No loops of Python: this is asked at every pass, of a thousand tensors."""
    return (
        list(map(Tensor.data_ptr, tensors)),
        list(map(attrgetter("dtype"), tensors)),
        list(map(attrgetter("shape"), tensors)),
        list(map(Tensor.stride, tensors)),
    )


class Watch:
    """What a graph of a module has written into it: address, dtype, shape and strides of every weight, and which modules there are.

    It holds the parts of the module, never the module itself, so a dictionary with weak keys can hold it for its module.
    """

    def __init__(self, module: Any) -> None:
        self._root = module.__dict__
        self._uuid = self._root.get("current_weight_patches_uuid")
        self._states = [part.__dict__ for part in module.modules()]
        parts = [(state["_modules"], name, part) for state in self._states for name, part in state["_modules"].items()]
        self._part_slots = [(places, name) for places, name, _ in parts]
        self._parts = [part for _, _, part in parts]
        slots = [
            (places, name)
            for state in self._states
            for places in (state["_parameters"], state["_buffers"])
            for name in places
        ]
        self._slots = [(places, name) for places, name in slots if places[name] is not None]
        self._empty = [(places, name) for places, name in slots if places[name] is None]
        self._facts = facts([places[name] for places, name in self._slots])

    def unchanged(self) -> bool:
        """Whether all of it is as it was when the watch was set. Reads nothing from the device."""
        try:
            return (
                self._root.get("current_weight_patches_uuid") == self._uuid
                and facts([places[name] for places, name in self._slots]) == self._facts
                and all(map(is_, [places[name] for places, name in self._part_slots], self._parts))
                and all(places[name] is None for places, name in self._empty)
                and not any(
                    "forward" in state
                    or state["_forward_hooks"]
                    or state["_forward_pre_hooks"]
                    or state.get("weight_function")
                    or state.get("bias_function")
                    for state in self._states
                )
            )
        except (KeyError, TypeError):  # one is no longer there, or None
            return False
