"""The names of a checkpoint without the prefixes that training scripts put before them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from .beside import Beside
from .tensors import Checkpoint, TensorInfo

# `control_model.` picks the control out of a whole Stable Diffusion checkpoint: one key suffices, the others are left.
CONTROL_PREFIX = "control_model."
MODEL_PREFIX = "model.diffusion_model."
# These count only where every key has them.
WRAPPER_PREFIXES = ("module.", "_orig_mod.", "_forward_module.", "controlnet.", "adapter.")
# Beside such keys `control_model.` is a part of the names themselves (the layouts of ControlNet-XS before diffusers' adapter).
BESIDE = ("down_zero_convs_", "up_zero_convs_", "enc_zero_convs_", "dec_zero_convs_")
# Marker tensors that tell a family and stand outside of the prefix.
MARKERS = ("difference", "lora_controlnet")
# What training counts and saves with the weights, by the last part of the name: single numbers or integers, with which no control computes.
COUNTERS = frozenset(
    ("decay", "epoch", "global_step", "logit_scale", "num_batches_tracked", "num_updates", "position_ids", "step")
)


@dataclass(frozen=True)
class Canonical:
    """Canonical name -> tensor of the file (which keeps its own name in `TensorInfo.name`)."""

    path: Path
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    prefix: str
    with_model: bool = False
    """Whether the file holds a Stable Diffusion model beside the control."""
    beside: Beside = field(default_factory=Beside)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape


def canonical(checkpoint: Checkpoint, other_files: Beside | None = None) -> Canonical:
    """Strip `control_model.` (leaving what is outside of it) or a wrapper's prefix that all keys share, and leave out what counts steps."""
    kept = {name: info for name, info in checkpoint.tensors.items() if not counts(info)}
    with_model = any(name.startswith(MODEL_PREFIX) for name in kept)
    tensors, prefix = unwrapped(kept)
    return Canonical(checkpoint.path, tensors, checkpoint.metadata, prefix, with_model, other_files or Beside())


def within(file: Canonical) -> Canonical | None:
    """The same without the first part of its names, where all share it: a wrapper of a name that is not known here."""
    first, dot, _ = next(iter(file.tensors), "").partition(".")
    wrapper = first + dot
    if not dot or not all(name.startswith(wrapper) for name in file.tensors):
        return None
    tensors, prefix = unwrapped({name[len(wrapper) :]: info for name, info in file.tensors.items()})
    return replace(file, tensors=tensors, prefix=file.prefix + wrapper + prefix)


def unwrapped(tensors: Mapping[str, TensorInfo]) -> tuple[Mapping[str, TensorInfo], str]:
    """What the known prefixes hold, and these prefixes."""
    prefix = ""
    while wrapper := next((p for p in WRAPPER_PREFIXES if tensors and all(n.startswith(p) for n in tensors)), None):
        tensors = {name[len(wrapper) :]: info for name, info in tensors.items()}
        prefix += wrapper
    if any(name.startswith(CONTROL_PREFIX) for name in tensors) and not any(
        name.startswith(BESIDE) for name in tensors
    ):
        inside = {n[len(CONTROL_PREFIX) :]: info for n, info in tensors.items() if n.startswith(CONTROL_PREFIX)}
        tensors = {name: tensors[name] for name in MARKERS if name in tensors} | inside
        prefix += CONTROL_PREFIX
    return tensors, prefix


def counts(info: TensorInfo) -> bool:
    """Whether a tensor is a counter of the training, or a table of positions."""
    return info.name.rpartition(".")[2] in COUNTERS and (info.numel == 1 or not info.dtype.is_floating_point)
