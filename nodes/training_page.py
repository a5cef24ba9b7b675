"""What the page shows of a training, and what it asks of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils

from ..training.losses import StepLog
from ..training.picture import live
from ..training.settings import Settings
from ..training.validation import Drawn

SECONDS_BETWEEN_PICTURES = 2.0


class Interruption:
    """The page's wish to stop, which the host tells by an exception out of its progress bar and many other places. A training has to save
    its state first."""

    def __init__(self) -> None:
        self._heard = False

    def __call__(self) -> bool:
        return self._heard or comfy.model_management.processing_interrupted()

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Whatever is interrupted inside is broken off, and the training told."""
        try:
            yield
        except comfy.model_management.InterruptProcessingException:
            self._heard = True

    def pass_on(self) -> None:
        """Ends the node as the host wants it, if it was asked to."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        if self._heard:
            raise comfy.model_management.InterruptProcessingException


@dataclass
class Live:
    """What the page shows while it trains."""

    title: str
    folder: Path
    settings: Settings
    interruption: Interruption
    higher_is_better: bool
    show: Callable[[str], None]
    """Shows words on the node."""
    step: int
    """Steps done before."""
    drawn: Drawn | None = None
    _bar: Any = field(init=False)
    _status: str = ""
    _next: float = 0.0
    _counted: bool = False
    """Whether the step that is done now was counted by its row of the log, which comes before `stepped`."""

    def __post_init__(self) -> None:
        self._bar = comfy.utils.ProgressBar(self.settings.steps)

    def stepped(self) -> None:
        """After each step, whether or not there was a row of the log."""
        if not self._counted:
            self.step += 1
        self._counted = False
        self._update(None)

    def logged(self, log: StepLog) -> None:
        self.step, self._counted = log.step, True
        left = (self.settings.steps - log.step) * self.settings.batch / max(log.rows_per_second, 1e-9)
        self._status = (
            f"step {log.step} of {self.settings.steps}, loss {log.loss:.4g}, {log.rows_per_second:.3g} pictures a second, "
            f"{duration(left)} left"
        )
        if time.monotonic() >= self._next:
            self._picture()

    def validated(self, drawn: Drawn) -> None:
        self.drawn = drawn
        self.step = max(self.step, drawn.step)
        self._picture()

    def _picture(self) -> None:
        page = live(self.folder, self.title, self._status, self.drawn, self.higher_is_better)
        self._update(("JPEG", page, max(page.size)))
        with self.interruption.heard():
            self.show(self._status)
        self._next = time.monotonic() + SECONDS_BETWEEN_PICTURES

    def _update(self, preview: Any) -> None:
        with self.interruption.heard():
            self._bar.update_absolute(self.step, preview=preview)


def duration(seconds: float) -> str:
    """In words, of the two largest units."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{round(seconds)} s"
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
