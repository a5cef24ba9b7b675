"""One call of the sampler: its rows, where it is in the sampling, and what a run keeps for it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from ..residuals.blocks import Layout
from ..residuals.moments import Moment, Moments
from .areas import Area
from .held import Held
from .hint import HintEmbeddings
from .lane import Lane
from .layer_masks import LayerMasks
from .memory import rows_per_pass
from .record import Record


@dataclass(eq=False)
class Run:
    """What holds for one sampling run: made before it, dropped after it."""

    model_sampling: Any
    unet: Layout | None
    percent_to_sigma: Callable[[float], Any]
    sigma_ranges: tuple[tuple[Any, Any], ...]
    record: Record
    model: Any = None
    """The `comfy.model_base.BaseModel` that is sampled."""
    embeddings: HintEmbeddings = field(default_factory=HintEmbeddings)
    masks: LayerMasks = field(default_factory=LayerMasks)
    held: Held = field(default_factory=Held)
    lane: Lane = field(default_factory=Lane)
    """Where the networks run: one lane for the whole run, unless it is left for lack of memory."""
    moments: Moments | None = None
    sample_sigmas: tuple[float, ...] | None = None

    @cached_property
    def sigma_at(self) -> Callable[[float], Any]:
        """`percent_to_sigma` as the CPU computes it: where the model is on another device, the host's own waits for it each time it is asked."""
        sampling = self.model_sampling
        tensors = [*sampling.buffers(), *sampling.parameters()] if isinstance(sampling, torch.nn.Module) else []
        if all(tensor.device.type == "cpu" for tensor in tensors):
            return self.percent_to_sigma
        try:
            found: Callable[[float], Any] = copy.deepcopy(sampling).cpu().percent_to_sigma
        except Exception:  # some node's own class, which cannot be copied
            return self.percent_to_sigma
        return found

    def leave_lane(self, why: str) -> None:
        """From here on before the model. What was kept so far belongs to the lane's streams, so it is made anew, or copied where it decides a picture."""
        self.lane.give_up()
        self.lane = Lane(why)
        self.embeddings, self.masks, self.held = HintEmbeddings(), LayerMasks(), self.held.cloned()


@dataclass(frozen=True, eq=False)
class Step:
    """One call of the sampler: `chunks` batches of latents, one below the other, each for one conditioning.

    `x_noisy` (B, C, h, w) and `sigmas` (B,) are the sampler's values. `frames` are the positions of a chunk's latents in the whole batch of
    `total`, which is longer under context windows. `areas` holds the part of the `canvas` that each chunk is, or None for all of it.
    """

    x_noisy: Tensor
    sigmas: Tensor
    cond: dict[str, Any]
    chunks: int
    options: dict[str, Any]
    run: Run
    frames: tuple[int, ...]
    total: int
    areas: tuple[Area | None, ...]
    canvas: tuple[int, int]

    @property
    def count(self) -> int:
        return int(self.x_noisy.shape[0])

    @property
    def per_chunk(self) -> int:
        return self.count // self.chunks

    @property
    def size(self) -> tuple[int, int]:
        return int(self.x_noisy.shape[-2]), int(self.x_noisy.shape[-1])

    @property
    def kinds(self) -> list[int]:
        """0 for each conditional chunk, as the host marks them."""
        kinds: list[int] = self.options.get("cond_or_uncond") or [0] * self.chunks
        return kinds

    @cached_property
    def sigma(self) -> Tensor:
        """The first row's sigma, on the CPU: one wait for the device, not two per layer."""
        return self.sigmas[0].cpu()

    @property
    def sample_sigmas(self) -> tuple[float, ...] | None:
        """The run's sigmas; None where the sampler does not tell them."""
        if self.run.sample_sigmas is None and self.options.get("sample_sigmas") is not None:
            self.run.sample_sigmas = tuple(self.options["sample_sigmas"].tolist())
            self.run.record.sampler_steps = len(self.run.sample_sigmas) - 1
        return self.run.sample_sigmas

    @cached_property
    def moment(self) -> Moment:
        """For schedules only: the host must be asked twenty times for it."""
        if self.run.moments is None:
            self.run.moments = Moments(self.run.sigma_at, self.sample_sigmas)
        return self.run.moments.at(float(self.sigma))

    @cached_property
    def latent(self) -> Tensor:
        """The latent as the network sees it."""
        latent: Tensor = self.run.model_sampling.calculate_input(self.sigmas, self.x_noisy)
        return latent

    @cached_property
    def timesteps(self) -> Tensor:
        timesteps: Tensor = self.run.model_sampling.timestep(self.sigmas)
        return timesteps

    def begin(self) -> None:
        """Computes what all networks read, before their streams part."""
        _ = self.latent, self.timesteps

    def rows_per_pass(self, rows: int) -> int:
        """How many of the `rows` of a network it evaluates at a time (memory.py)."""
        on_cpu = bool(comfy.model_management.is_device_cpu(self.x_noisy.device))
        return rows_per_pass(rows, self.count, math.prod(self.size), on_cpu)

    def place(self, row: int) -> tuple[int, Area | None]:
        """The position of a row's latent in the whole batch, and its area."""
        return self.frames[row % self.per_chunk], self.areas[row // self.per_chunk]
