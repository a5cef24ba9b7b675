"""The noise of a run that was not started yet: the sigmas that the host's sampler will get, from what stands in the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import comfy.model_base
import comfy.model_detection
import comfy.model_sampling
import comfy.samplers
import folder_paths
import torch
from torch import Tensor

from ..checkpoints.errors import CheckpointError
from ..checkpoints.read import open_checkpoint

Node = Mapping[str, Any]
"""A node as the page sends it: `type`, and `values`, those of its widgets by their names."""

FILES = {
    "CheckpointLoaderSimple": ("checkpoints", "ckpt_name"),
    "CheckpointLoader": ("checkpoints", "ckpt_name"),
    "UNETLoader": ("diffusion_models", "unet_name"),
}
"""Nodes of the host that give a model from a file: the folder, and the widget with its name."""

DEMO_WORLD = "ControlComposerDemoWorld"
PATCHES = "ModelSampling"
"""How the host's nodes begin that give a model another noise schedule."""

SMALL = 4096
"""Tensors of at most so many numbers are read, because the host looks into some of them for the kind of a model; others only need a shape."""


class Held:
    """What the host's KSampler asks of a model."""

    def __init__(self, model_sampling: Any) -> None:
        self.model_sampling = model_sampling

    def get_model_object(self, name: str) -> Any:
        return getattr(self, name)


@dataclass(frozen=True, eq=False)
class Noise:
    """A model's noise schedule. `source` is the file it was read from, empty where Stable Diffusion's is assumed."""

    model_sampling: Any
    source: str = ""


def noise_of(nodes: Sequence[Node]) -> Noise | None:
    """The noise schedule of the model that goes through `nodes`, the sampler's nearest first. None where one of them changes it.

    Stable Diffusion's where the first of them is not known, or its file cannot be read.
    """
    if any(str(node["type"]).startswith(PATCHES) for node in nodes):
        return None
    root = nodes[-1] if nodes else {}
    folder, widget = FILES.get(str(root.get("type")), ("", ""))
    name = str(root.get("values", {}).get(widget, "")) if folder else ""
    path = folder_paths.get_full_path(folder, name) if name else None
    if path is not None:
        sampling = of_file(path, Path(path).stat().st_mtime_ns)
        if sampling is not None:
            return Noise(sampling, name)
    return Noise(stable_diffusion())


@lru_cache(maxsize=1)
def stable_diffusion() -> Any:
    """The host's for SD1, SD2 and SDXL."""

    class Sampling(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
        pass

    return Sampling()


@lru_cache(maxsize=16)
def of_file(path: str, _changed: int) -> Any:
    """The host's own for the model in a file, by names and shapes; None where it does not know the model or needs more than those."""
    try:
        checkpoint = open_checkpoint(Path(path))
        small = {name: one for name, one in checkpoint.tensors.items() if one.numel <= SMALL}
        state: dict[str, Tensor] = {
            name: torch.empty(one.shape, dtype=one.dtype, device="meta") for name, one in checkpoint.tensors.items()
        } | dict(checkpoint.fetch(small))
        prefix = comfy.model_detection.unet_prefix_from_state_dict(state)
        config = comfy.model_detection.model_config_from_unet(state, prefix)
        if config is None:
            return None
        return comfy.model_base.model_sampling(config, config.model_type(state, prefix))
    except (
        CheckpointError,
        OSError,
        AttributeError,
        KeyError,
        NotImplementedError,
        RuntimeError,
        TypeError,
        ValueError,
    ):
        return None  # The page then says what it assumes.


@dataclass(frozen=True)
class Steps:
    """The steps that a sampler will take: so many, by this scheduler, and its n + 1 sigmas where they are known."""

    count: int
    scheduler: str = ""
    sigmas: tuple[float, ...] = ()


def steps_of(sampler: Node, source: Node | None, noise: Noise | None) -> Steps | None:
    """What `sampler` will do; `source` is the node that its sigmas come from, where they come from one. None where it cannot be known."""
    values = dict((source or sampler)["values"])
    steps = values.get("steps")
    if not isinstance(steps, int) or steps < 1:
        return None
    if source is not None and source["type"] != "BasicScheduler":
        return Steps(steps)
    scheduler = str(values.get("scheduler", ""))
    denoise = float(values.get("denoise", 1.0))
    first, last = int(values.get("start_at_step", 0)), int(values.get("end_at_step", steps))
    sigmas: list[float] = []
    if noise is not None and scheduler in comfy.samplers.KSampler.SCHEDULERS:
        # BasicScheduler knows no sampler, and "euler" is none of those that leave out the last but one of the sigmas.
        sampler_name = "euler" if source is not None else str(values.get("sampler_name", "euler"))
        made = comfy.samplers.KSampler(
            Held(noise.model_sampling), steps, torch.device("cpu"), sampler_name, scheduler, denoise
        )
        sigmas = made.sigmas.tolist()
        steps = max(len(sigmas) - 1, 0)
    # As KSampler.sample of the host cuts them.
    if last < steps:
        sigmas = sigmas[: last + 1]
        if sigmas and values.get("return_with_leftover_noise", "disable") == "disable":
            sigmas[-1] = 0.0
    count = min(last, steps) - first
    return Steps(count, scheduler, tuple(sigmas[first:])) if count > 0 else None
