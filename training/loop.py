"""The training loop (host side)."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from .batch import Batch, Data, EmptyPrompt
from .checkpoint import State, load, save
from .draws import draw, rows
from .ema import Average
from .errors import TrainingError
from .forward import controlled
from .losses import WINDOW, StepLog, Table
from .objective import Schedule, bucket_sums, noised, row_losses, target, weights
from .optimisers import make_optimiser
from .processes import Processes
from .settings import Settings

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, eq=False)
class Trained:
    """What `train` leaves."""

    step: int
    """Steps done; fewer than asked for where it was stopped."""
    control: nn.Module
    """With the weights of the last step."""
    average: dict[str, Tensor]
    """The moving average under the same names: what is to be used. With FSDP in the first process only."""


def train(
    unet: Any,
    control: Any,
    data: Data,
    schedule: Schedule,
    settings: Settings,
    folder: Path,
    *,
    predict: Callable[..., Tensor] = controlled,
    accelerator: Any | None = None,
    on_step: Callable[[StepLog], None] | None = None,
    on_validate: Callable[[int, nn.Module], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Trained:
    """Trains `control` (of `trainable_copy`) in place beside the UNet, which is left frozen, and continues what `folder` holds.

    Both are on the device that computes. Every `save_every` steps, at the end and on a stop the state is saved; a run that goes on from there
    computes what one without a stop computes. `on_step` is called in the first process every `log_every` steps, `on_validate` with the
    averaged weights in place at step 0, every `validate_every` steps and at the end (with FSDP all processes have to give one, and the first
    sees a copy), `should_stop` after each step in every process.
    `predict` (called as `controlled` is) is for what acts on the UNet otherwise than by residuals. `accelerator` is needed where several
    processes train together; `settings.batch` counts the rows of all.

    Raises TrainingError for settings, data or a folder that do not fit, for a loss that is no number, and where nothing can be saved.
    """
    return Loop(unet, control, data, schedule, settings, folder, predict, accelerator).run(
        on_step, on_validate, should_stop
    )


class Loop:
    """What `train` runs, for who wants its steps one by one."""

    def __init__(
        self,
        unet: Any,
        control: Any,
        data: Data,
        schedule: Schedule,
        settings: Settings,
        folder: Path,
        predict: Callable[..., Tensor] = controlled,
        accelerator: Any = None,
    ) -> None:
        if len(data) == 0:
            raise TrainingError(
                "The data", found="has no rows", expected="one at least was expected", remedy="give it pictures"
            )
        self.settings, self.folder, self.data, self.predict = settings, folder, data, predict
        self.processes = Processes(accelerator, control)
        self.device = self.processes.device
        self.part = settings.part(self.processes.count)
        self.groups = data.groups.numpy(force=True)
        if self.processes.sharded and (self.groups != self.groups[0]).any():
            raise TrainingError(
                "The data",
                found="has pictures of several sizes",
                expected="one size was expected, since with FSDP all processes have to make the same calls",
                remedy="prepare squares ('widest' 1), or train without FSDP",
            )
        self.schedule = schedule.to(self.device)
        self.empty = EmptyPrompt(
            data.empty.context.to(self.device),
            None if data.empty.pooled is None else data.empty.pooled.to(self.device),
        )
        self.unet = unet.eval().requires_grad_(False)
        self.control = control.to(self.device).train().requires_grad_(True)
        self.control.gradient_checkpointing = settings.checkpointing
        # A control in parts answers only if all processes ask at once, and only the first draws.
        self.drawing = copy.deepcopy(control).cpu() if self.processes.sharded and self.processes.first else None
        optimiser = make_optimiser(settings, control.parameters(), self.device)
        self.wrapped, self.optimiser = self.processes.prepare(self.control, optimiser)
        self.average = Average(self.control, settings.ema)
        self.scaler = GradScaler(self.device.type, enabled=settings.precision == "fp16")
        self.window = torch.zeros(WINDOW, dtype=torch.float64, device=self.device)
        self.first = self._continue()

    def run(
        self,
        on_step: Callable[[StepLog], None] | None,
        on_validate: Callable[[int, nn.Module], None] | None,
        should_stop: Callable[[], bool] | None,
    ) -> Trained:
        settings, first = self.settings, self.processes.first
        table = Table(self.folder, self.first) if first else None
        if self.first == 0:
            self._validate(0, on_validate)
        done, since, counted = self.first, time.monotonic(), 0
        stopped = False
        while done < settings.steps and not stopped:
            gradient = self.step(done)
            done += 1
            counted += settings.batch
            last = done == settings.steps
            if last or done % settings.log_every == 0:
                seconds = max(time.monotonic() - since, 1e-9)
                total = self.processes.sum(self.window)
                row = StepLog.of(done, total, settings.rate_at(done - 1), float(gradient), counted / seconds)
                self._check_finite("loss", row.loss, done)
                if table is not None:
                    table.add(row)
                    if on_step is not None:
                        on_step(row)
                self.window.zero_()
                since, counted = time.monotonic(), 0
            stopped = should_stop is not None and self.processes.any(should_stop())
            if last or stopped or done % settings.save_every == 0:
                self._save(done, gradient)
            if last or (settings.validate_every and done % settings.validate_every == 0):
                self._validate(done, on_validate)
        return Trained(done, self.control, self.processes.whole(self.average.state()))

    def step(self, step: int) -> Tensor:
        """Step number `step` of the optimiser; the length of its gradient, a tensor of no dimension."""
        settings = self.settings
        for group in self.optimiser.param_groups:
            group["lr"] = settings.rate_at(step)
        parts = list(self._parts(step))
        own = sum(len(positions) for positions, _ in parts)
        for index, (positions, numbers) in enumerate(parts):
            with self.processes.gathering(self.wrapped, last=index == len(parts) - 1):
                loss = self._loss(step, positions, numbers) / own
                self.processes.backward(self.scaler.scale(loss))
        parameters = [parameter for parameter in self.control.parameters() if parameter.grad is not None]
        self.scaler.unscale_(self.optimiser)
        gradient = nn.utils.clip_grad_norm_(parameters, settings.clip or math.inf)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        self.average.update(step)
        return self.processes.number(gradient.detach())

    def _parts(self, step: int) -> Iterator[tuple[list[int], Tensor]]:
        """This process's rows of a step in parts of one size each: places in the batch, and row numbers of the data."""
        settings, processes = self.settings, self.processes
        numbers = rows(settings.seed, step, settings.batch, self.groups)
        groups = self.groups[numbers.numpy()].tolist()
        for turn in range(settings.accumulation):
            start = (turn * processes.count + processes.index) * self.part
            by_group: dict[int, list[int]] = {}
            for position in range(start, start + self.part):
                by_group.setdefault(groups[position], []).append(position)
            for positions in by_group.values():
                yield positions, numbers[positions]

    def _loss(self, step: int, positions: list[int], numbers: Tensor) -> Tensor:
        """The weighted losses of these rows, added up."""
        settings, schedule = self.settings, self.schedule
        batch = self._on_device(self.data.batch(numbers))
        shape = tuple(batch.latent.shape[1:])
        drawn = draw(
            settings.seed, step, positions, shape, len(schedule), settings.empty_prompts, settings.middle_times
        )
        times, noise, dropped = map(self._moved, drawn)
        alpha = schedule.alphas_cumprod[times]
        context, y = self._prompts(batch, dropped)
        with self._precision():
            predicted = self.predict(
                self.unet,
                self.wrapped,
                noised(batch.latent, noise, alpha),
                batch.hint,
                times.float(),
                context,
                y,
                checkpointing=settings.checkpointing,
            )
        losses = row_losses(predicted, target(batch.latent, noise, alpha, schedule.prediction))
        weighted = losses * weights(alpha, schedule.prediction, settings.min_snr)
        # Filled where it is: a number that is copied to a GPU would wait for all that the GPU still has to do.
        counted = self.window.new_full((), len(positions))
        told = torch.stack([weighted.detach().double().sum(), counted])
        self.window += torch.cat([told, bucket_sums(losses, times, len(schedule)).flatten()])
        return weighted.sum()

    def _on_device(self, batch: Batch) -> Batch:
        hint = self._moved(batch.hint)
        hint = hint.float() / 255 if hint.dtype == torch.uint8 else hint.float()
        return Batch(
            self._moved(batch.latent).float(),
            self._moved(batch.context).float(),
            None if batch.y is None else self._moved(batch.y).float(),
            hint,
        )

    def _moved(self, values: Tensor) -> Tensor:
        """On the device. Out of pinned memory a copy to a GPU does not wait for the steps before it."""
        if self.device.type == "cuda" and values.device.type == "cpu":
            values = values.pin_memory()
        return values.to(self.device, non_blocking=True)

    def _prompts(self, batch: Batch, dropped: Tensor) -> tuple[Tensor, Tensor | None]:
        """Context and y with the empty prompt's in the rows whose own are dropped."""
        context = torch.where(dropped[:, None, None], self.empty.context.to(batch.context.dtype), batch.context)
        if batch.y is None or self.empty.pooled is None:
            return context, batch.y
        width = self.empty.pooled.shape[1]
        pooled = torch.where(dropped[:, None], self.empty.pooled.to(batch.y.dtype), batch.y[:, :width])
        return context, torch.cat([pooled, batch.y[:, width:]], dim=1)

    def _precision(self) -> AbstractContextManager[Any]:
        dtype = DTYPES.get(self.settings.precision)
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)

    def _check_finite(self, what: str, value: float, step: int) -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"The training's {what} at step {step}",
                found=f"is {value}",
                expected="a finite number was expected",
                remedy="start again to continue from the last saved state, with a lower rate or in bf16 or fp32",
            )

    @torch.no_grad()
    def _validate(self, step: int, on_validate: Callable[[int, nn.Module], None] | None) -> None:
        if on_validate is not None and self.processes.sharded:
            average = self.processes.whole(self.average.state())
            if self.drawing is not None:
                self.drawing.load_state_dict(average)
                on_validate(step, self.drawing.to(self.device).eval())
                self.drawing.cpu()
        elif on_validate is not None and self.processes.first:
            self.control.eval()
            with self.average.applied():
                on_validate(step, self.control)
            self.control.train()
        self.processes.wait()

    def _save(self, step: int, gradient: Tensor) -> None:
        window = self.processes.sum(self.window.clone())
        self._check_finite("loss", float(window[0]), step)
        # In fp16 the scaler leaves such a step out.
        if not self.scaler.is_enabled():
            self._check_finite("gradient", float(gradient), step)
        whole = self.processes.whole
        state = State(
            step,
            whole(self.control.state_dict()),
            whole(self.average.state()),
            whole(self.optimiser.state_dict()),
            self.scaler.state_dict(),
            window,
            self._identity(),
        )
        if self.processes.first:
            save(self.folder, state)
        self.processes.wait()

    def _continue(self) -> int:
        """Takes up what the folder holds; the number of steps done."""
        state = load(self.folder, torch.device("cpu") if self.processes.sharded else self.device)
        if state is None:
            return 0
        for name, own in self._identity().items():
            before = state.identity.get(name)
            if before != own:
                raise TrainingError(
                    f"The training in '{self.folder}'",
                    found=f"was begun with {name} {before}",
                    expected=f"{own} was expected, as it is now",
                    remedy="choose another folder to begin anew, or take back the change to continue",
                )
        weights = dict(self.control.named_parameters())
        self.control.load_state_dict(self.processes.placed(state.control, weights))
        self.average.load(self.processes.placed(state.average, weights))
        self.optimiser.load_state_dict(self.processes.placed_state(state.optimiser, self.control))
        if state.scaler:
            self.scaler.load_state_dict(state.scaler)
        if self.processes.first:
            self.window.copy_(state.window)
        return state.step

    def _identity(self) -> dict[str, Any]:
        """What the draws and the meaning of the weights depend on."""
        settings = self.settings
        return {
            "seed": settings.seed,
            "batch": settings.batch,
            "rows": len(self.data),
            "optimiser": settings.optimiser,
            "prediction": self.schedule.prediction,
            "parameters": sum(parameter.numel() for parameter in self.control.parameters()),
        }
