"""Trainings of random weights whose steps can be taken one at a time: a control beside its locked UNet, and a UNet by itself."""

from __future__ import annotations

import copy
import gc
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor, nn

from control_composer.benchmarks.memory import memory_of
from control_composer.benchmarks.runs import seconds_of
from control_composer.benchmarks.widths import NARROW, SD15, SDXL, TOKENS, fill
from control_composer.demo.unet import UNET_CONFIG
from control_composer.demo.words import LENGTH
from control_composer.training.attention import options
from control_composer.training.batch import Batch, EmptyPrompt
from control_composer.training.copy import trainable_copy
from control_composer.training.layers import TrainingOperations
from control_composer.training.loop import DTYPES, Loop
from control_composer.training.objective import Schedule
from control_composer.training.settings import Settings

# Stable Diffusion 1.5 at half its width, for machines that cannot hold a training of all of it.
HALF = SD15 | {"model_channels": 160}
WIDTHS: dict[str, dict[str, Any]] = {
    "demo": UNET_CONFIG,
    **{
        name: config | {"out_channels": 4}
        for name, config in (("narrow", NARROW), ("half", HALF), ("sd15", SD15), ("sdxl", SDXL))
    },
}
ROWS = 64


@dataclass(frozen=True)
class Scene:
    """What all runs have in common."""

    width: str
    pixels: int
    settings: Settings
    device: torch.device

    @property
    def tokens(self) -> int:
        return LENGTH if self.width == "demo" else TOKENS

    def data(self) -> RandomRows:
        config = WIDTHS[self.width]
        return RandomRows(self.pixels, self.tokens, config["context_dim"], config["adm_in_channels"])

    def unet(self, dtype: torch.dtype) -> Any:
        config = copy.deepcopy(WIDTHS[self.width])
        unet = UNetModel(**config, dtype=dtype, operations=TrainingOperations, device=torch.device("meta"))
        unet.to_empty(device="cpu")
        fill(unet, 0)
        return unet.to(self.device)

    def schedule(self) -> Schedule:
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000).square()
        return Schedule((1 - betas).cumprod(0), "eps")


class RandomRows:
    """Prepared rows in memory (`training.batch.Data`)."""

    def __init__(self, pixels: int, tokens: int, width: int, pooled: int | None) -> None:
        generator = torch.Generator().manual_seed(0)
        cells = pixels // 8
        self.groups = torch.zeros(ROWS, dtype=torch.int64)
        self.empty = EmptyPrompt(torch.zeros(1, tokens, width), torch.zeros(1, 1280) if pooled else None)
        self._latent = torch.randn(ROWS, 4, cells, cells, generator=generator)
        self._context = torch.randn(ROWS, tokens, width, generator=generator)
        self._y = torch.randn(ROWS, pooled, generator=generator) if pooled else None
        self._hint = torch.randint(256, (ROWS, 3, pixels, pixels), generator=generator, dtype=torch.uint8)

    def __len__(self) -> int:
        return ROWS

    def batch(self, rows: Tensor) -> Batch:
        y = None if self._y is None else self._y[rows]
        return Batch(self._latent[rows], self._context[rows], y, self._hint[rows])


@dataclass(eq=False)
class Run:
    """One training, and what its steps took."""

    name: str
    loop: Loop
    weights: int
    """Parameters that are trained."""
    before: int = 0
    """Bytes before the first step: weights and their average."""
    kept: int = 0
    """Bytes that the first step leaves: the optimiser's moments."""
    peak: int = 0
    """Bytes at most of a later step, over those."""
    resident: int | None = None
    """Of the process at most, over those before the run, where the system tells it."""
    seconds: list[float] = field(default_factory=list)
    done: int = 0

    @property
    def memory(self) -> int:
        return self.before + self.kept + self.peak

    def step(self) -> Tensor:
        length = self.loop.step(self.done)
        self.done += 1
        return length

    def time(self, clock: Callable[[], float]) -> None:
        self.seconds.append(seconds_of(self.step, self.loop.device, clock))


def open_run(name: str, scene: Scene, folder: Path) -> Run:
    """The run with its memory measured in two steps; `folder` stays empty."""
    resident = Resident()
    opened: list[Run] = []

    def opening() -> Tensor:
        opened.append(KINDS[name](scene, folder))
        return torch.zeros(1, device=scene.device)

    before = memory_of(opening, scene.device)[1].kept
    run = opened.pop()
    run.before = before
    run.kept = memory_of(run.step, scene.device)[1].kept
    run.peak = memory_of(run.step, scene.device)[1].peak
    run.resident = resident.most()
    return run


def control(scene: Scene, folder: Path) -> Run:
    """A trainable copy beside the locked UNet, which is held in the type that the training computes in."""
    unet = scene.unet(DTYPES.get(scene.settings.precision, torch.float32))
    trained = trainable_copy(unet)
    loop = Loop(unet, trained, scene.data(), scene.schedule(), scene.settings, folder)
    return Run("control", loop, count(trained))


def unet_alone(scene: Scene, folder: Path) -> Run:
    """The UNet itself, all of it trained."""
    unet = scene.unet(torch.float32)

    def predict(
        _: Any,
        unet: nn.Module,
        x: Tensor,
        hint: Tensor,
        timesteps: Tensor,
        context: Tensor,
        y: Tensor | None,
        **__: Any,
    ) -> Tensor:
        predicted: Tensor = unet(x, timesteps, context, y, transformer_options=options())
        return predicted

    loop = Loop(nn.Identity(), unet, scene.data(), scene.schedule(), scene.settings, folder, predict)
    return Run("unet alone", loop, count(unet))


KINDS = {"control": control, "unet alone": unet_alone}


class Resident:
    """The most memory of the process since this was made, over what it had then; Linux only."""

    def __init__(self) -> None:
        gc.collect()
        try:
            Path("/proc/self/clear_refs").write_text("5")
            self._then = _status("VmRSS")
        except (OSError, AttributeError):
            self._then = None

    def most(self) -> int | None:
        return None if self._then is None else (_status("VmHWM") or 0) - self._then


def _status(name: str) -> int | None:
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 2**10 if found else None


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
