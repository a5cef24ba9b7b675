"""Which lane a run's networks take, and why not the one beside the model."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .foreign import ForeignControl
from .lane import Lane
from .layer import Layer
from .network import EncoderNetwork
from .patch_network import PatchNetwork, is_compiled
from .step import Step

MEASURED: tuple[tuple[int, int], ...] = ()
"""Compute capabilities of CUDA devices on which "auto" runs networks beside the model: those where that was measured to pay. None yet."""

DEVICES = {"cpu": "a CPU", "mps": "an Apple GPU", "xpu": "an Intel GPU"}


def lane_of(layers: Sequence[Layer], step: Step) -> Lane:
    """The lane of a run's networks, which is the same at all of its steps: tensors that are kept belong to its streams."""
    device = step.x_noisy.device
    why = why_in_line(layers, step, device)
    if why is not None:
        return Lane(why)
    from .cuda_lane import CudaLane  # only where there is CUDA

    return CudaLane(device)


def may_be_beside(layers: Sequence[Layer], inspect: bool) -> bool:
    """Whether a run of acting layers may have its networks beside the model, as far as that is known before it."""
    encoders = [layer.source for layer in layers if isinstance(layer.source, EncoderNetwork)]
    return not inspect and bool(encoders) and why_in_line(layers, None, encoders[0].patcher.load_device) is None


def why_in_line(layers: Sequence[Layer], step: Step | None, device: torch.device) -> str | None:
    """Why the networks run before the model, in words; None if they may run beside it. Without a `step` only what is known before a run counts."""
    acting = [(number, layer) for number, layer in enumerate(layers, 1) if not layer.idle]
    for number, layer in acting:
        if layer.beside == "off":
            return f"layer {number} has beside_model off"
    if device.type != "cuda" or torch.version.hip is not None:
        return f"that needs a CUDA device, and this is {'ROCm' if device.type == 'cuda' else DEVICES.get(device.type, device.type)}"
    for number, layer in acting:
        if isinstance(layer.source, ForeignControl):
            return f"layer {number} is a control of another kind, which runs as it is"
        if isinstance(layer.source, PatchNetwork):
            return f"layer {number} acts inside of the model"
    if step is not None and step.run.record.inspect:
        return "the run is inspected"
    if step is not None and (
        is_compiled(step.options) or hasattr(getattr(step.run.model, "diffusion_model", None), "_orig_mod")
    ):
        return "the model is compiled, which keeps its residuals in plain lists"
    if host_records():
        return "the host records graphs of its own"
    capability = torch.cuda.get_device_capability(device)
    if capability not in MEASURED and not any(layer.beside == "on" for _, layer in acting):
        major, minor = capability
        return f"on a GPU of compute capability {major}.{minor} that was not measured yet; set beside_model to on to try it"
    return None


def host_records() -> bool:
    """Whether the host's memory library is recording allocations: newer ones do, and fail on those of another stream."""
    try:
        from comfy_aimdo import malloc_graph  # type: ignore[import-untyped]
    except ImportError:
        return False
    return bool(getattr(malloc_graph, "enabled", True))
