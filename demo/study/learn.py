"""Trains what the study compares, with the pack's own loop; what is finished is not trained again."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from ...training.settings import Settings
from ...training.whole import write_whole
from ..diffusion import alphas_cumprod
from ..pairs import PairData, Pairs
from ..train import control_settings
from ..watch import Watch
from ..words import Words
from .systems import SYSTEMS, Run, Velocity

log = logging.getLogger("demo.study")

SEEDS = (0, 1, 2)
PICTURES = (100, 1_000, 10_000)
WEIGHTS = "weights.safetensors"
WATCH_CLOSELY = 200
"""Up to this step the watch looks every time, then every other time."""
WATCH_STEPS = 10
"""Of the sampler, while a system learns: enough to see edges."""


def settings_of(run: Run) -> Settings:
    """All systems learn alike: as many steps, of as many pictures, at the same rate."""
    return control_settings(300, 16, seed=run.seed, warm_up=50, save_every=100, validate_every=50, log_every=20)


def runs(seeds: Iterable[int] = SEEDS) -> tuple[Run, ...]:
    """The architectures with all pictures, seed by seed, then the ControlNet with fewer."""
    seeds = tuple(seeds)
    return (
        *(Run(system, seed, PICTURES[-1]) for seed in seeds for system in SYSTEMS),
        *(Run("ControlNet", seed, pictures) for seed in seeds for pictures in PICTURES[:-1]),
    )


def begun(run: Run, unet: nn.Module) -> tuple[nn.Module, Callable[..., Tensor]]:
    """What is to be trained, and how it predicts beside the UNet."""
    from ...training.copy import trainable_copy
    from ...training.forward import controlled
    from .concatenation import ConcatenatedUNet, alone

    if run.system == "concatenation":
        return ConcatenatedUNet(unet), alone
    form = "lite" if run.system == "ControlNet-lite" else "copy"
    start = "gaussian" if run.system == "Gaussian start" else "zero"
    return trainable_copy(unet, start=start, form=form, seed=run.seed), controlled  # type: ignore[arg-type]


def learn(run: Run, unet: nn.Module, words: Words, pairs: Pairs, watch: Watch, folder: Path) -> None:
    """Trains one run into `folder`/<name>: losses.csv, watch.csv (step, edge F1, colour error) and the averaged weights."""
    own = folder / run.name
    if run.system == "no control" or (own / WEIGHTS).exists():
        return
    from ...training.loop import train
    from ...training.objective import Schedule

    control, predict = begun(run, unet)
    settings = settings_of(run)
    own.mkdir(parents=True, exist_ok=True)

    def on_validate(step: int, control: nn.Module) -> None:
        if step > WATCH_CLOSELY and step % (2 * settings.validate_every):
            return
        f1, colour = watch.scores(watch.draw_with(velocity(unet, control, predict), watch.hints["edges"], WATCH_STEPS))
        log.info("%s: step %d of %d, F1 %.3f, colour error %.4f", run.name, step, settings.steps, f1, colour)
        _note(own / "watch.csv", step, (f"{f1:.4f}", f"{colour:.4f}"))

    trained = train(
        unet,
        control,
        PairData(pairs, words, pairs.edge_hints, run.pictures),
        Schedule(alphas_cumprod(), "v"),
        settings,
        own,
        predict=predict,
        on_validate=on_validate,
    )
    state = {name: value.detach().clone().contiguous() for name, value in trained.average.items()}
    write_whole(own / WEIGHTS, lambda path: safetensors.torch.save_file(state, path), f"The study's run '{run.name}'")
    (own / "training.pt").unlink()


def velocity_of(run: Run, folder: Path, unet: nn.Module) -> Velocity:
    """Of a finished run, with averaged weights."""

    if run.system == "no control":
        return lambda x, times, context, hint: unet(x, times, context, transformer_options={}).float()
    control, predict = begun(run, unet)
    control.load_state_dict(safetensors.torch.load_file(folder / run.name / WEIGHTS))
    return velocity(unet, control.eval().requires_grad_(False), predict)


def control_file(run: Run, folder: Path, unet: Any) -> Path:
    """A finished "ControlNet" or "Gaussian start" as a file that the pack's loader reads."""
    from ...training.copy import encoder_of, heads_of
    from ...training.export import export

    path = folder / run.name / "control.safetensors"
    if not path.exists():
        weights = safetensors.torch.load_file(folder / run.name / WEIGHTS)
        export(path, weights, encoder_of(unet, 3), heads_of(unet), dtype=torch.float32)
    return path


def velocity(unet: nn.Module, control: nn.Module, predict: Callable[..., Tensor]) -> Velocity:
    def predicted(x: Tensor, times: Tensor, context: Tensor, hint: Tensor) -> Tensor:
        with torch.no_grad():
            return predict(unet, control, x, hint, times, context).float()

    return predicted


def _note(path: Path, step: int, values: tuple[str, ...]) -> None:
    """One row for each step; a run that goes on from an older state writes those behind it anew."""
    rows = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if int(row[0]) < step]
    lines = "".join(",".join(row) + "\n" for row in [*rows, [str(step), *values]])
    write_whole(path, lambda beside: beside.write_text(lines, encoding="utf-8"), "The study's watch")
