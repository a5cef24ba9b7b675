"""Records: what happened to every layer in one sampling run, written while sampling and read afterwards."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..residuals.moments import step_of


class Stopwatch:
    """Seconds between `start` and `stop` on a device, without waiting for it.

    On CUDA two events are put into the stream; only reading `seconds` waits for the second one. Elsewhere it is the clock of this process.
    """

    __slots__ = ("_begin", "_device", "_end", "_seconds")

    def __init__(self, device: torch.device) -> None:
        self._device = device if device.type == "cuda" else None
        self._begin: torch.cuda.Event | float | None = None
        self._end: torch.cuda.Event | float | None = None
        self._seconds: float | None = None

    def start(self) -> Stopwatch:
        self._begin, self._end, self._seconds = self._now(), None, None
        return self

    def stop(self) -> Stopwatch:
        self._end = self._now()
        return self

    def _now(self) -> torch.cuda.Event | float:
        if self._device is None:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    @property
    def seconds(self) -> float:
        """NaN unless it was started and stopped."""
        if self._seconds is None:
            if self._begin is None or self._end is None:
                return float("nan")
            if isinstance(self._begin, float) or isinstance(self._end, float):
                self._seconds = float(self._end) - float(self._begin)  # type: ignore[arg-type]
            else:
                self._end.synchronize()
                self._seconds = self._begin.elapsed_time(self._end) / 1000.0
            self._begin = self._end = None
        return self._seconds


@dataclass(frozen=True)
class LayerInfo:
    """What holds for a layer during the whole run. The settings are in words, empty where they change nothing."""

    number: int
    """Counted from 1, in the order of the graph."""
    name: str
    """The network: the name of its file."""
    base: str = ""
    """SD1, SD2, SDXL …"""
    strength: float = 1.0
    start_percent: float = 0.0
    end_percent: float = 1.0
    enabled: bool = True
    types: str = ""
    """The types of hint that a union network was told."""
    weights: str = ""
    schedule: str = ""
    mask: str = ""
    balance: str = ""
    batch: str = ""
    sizing: str = ""
    reuse: str = ""
    pictures: int = 1
    """Pictures of the hint as it was given."""
    hint_height: int = 0
    hint_width: int = 0
    """Pixels of the hint as it was given."""
    weights_bytes: int = 0
    """Size of the network's weights."""
    inside: bool = False
    """Whether it acts inside of the model, so that its time is part of the model's."""
    note: str = ""
    """A remark on its hint."""


@dataclass(frozen=True)
class LayerStep:
    """One layer in one call of the sampler."""

    call: int
    """Counted from 0 in each run; all layers of one `get_control` have the same."""
    layer: int
    """`LayerInfo.number`."""
    sigma: float
    """NaN until somebody reads it (`Record.read_sigmas`)."""
    percent: float
    """Place on the host's percent axis: 0 all noise, 1 the end; NaN until the run is over."""
    step: float
    """Fraction of this run's steps: the beginning of step i of n is (i-1)/n. NaN until somebody reads the sigma."""
    ran: bool
    reason: str = ""
    """Why it did not run: "off", "strength 0", "outside 0.0–0.5" …; empty if it ran."""
    gain: float = 1.0
    """strength × schedule × master strength."""
    blocks: tuple[tuple[str, float], ...] = ()
    """Name of each block (`Block.name`) that got a residual or would have, and gain × block weight."""
    uncond_factor: float = 1.0
    picture_factors: tuple[float, ...] = ()
    """The schedule's factor for each latent; empty where all are 1."""
    rows_run: int = 0
    """Rows that the network evaluated …"""
    rows: int = 0
    """… of so many in the batch: latents times branches."""
    pictures: tuple[int, ...] = ()
    """The hint picture, from 0, of each latent in this call; empty where not known (controls of another kind)."""
    area: tuple[int, int, int, int] | None = None
    """Height, width, top, left in latent cells of the conditioning's area; None for the whole canvas."""
    frames: tuple[int, ...] | None = None
    """Frames, from 0, of the host's context window; None without one."""
    hint_size: tuple[int, int] | None = None
    """Height and width in pixels of the hint as the network read it."""
    latent_size: tuple[int, int] | None = None
    """Height and width of the latent in cells."""
    stopwatch: Stopwatch | None = None
    residual_bytes: int = 0
    held_from: float | None = None
    """The sigma whose residuals were added again, without an evaluation; None where the network ran."""
    shares: int | None = None
    """Number of the layer in whose evaluation this one took part; the time is with that one."""
    beside: bool = False
    """Whether its network ran beside the model."""
    lane: str = ""
    """How it did, or why it ran before the model, in words."""

    @property
    def seconds(self) -> float | None:
        return None if self.stopwatch is None else self.stopwatch.seconds


@dataclass(eq=False)
class Record:
    """One sampling run of one control. Appending costs no wait for the device; norms stay there until somebody reads them."""

    layers: tuple[LayerInfo, ...] = ()
    model: str = ""
    """The model's base, for the reader."""
    sampler_steps: int | None = None
    """Steps of the run; None where the sampler was given no list of sigmas."""
    inspect: bool = False
    """Whether norms were asked for."""
    steps: list[LayerStep] = field(default_factory=list)
    embedding_bytes: dict[int, int] = field(default_factory=dict)
    """By layer number: its hint embeddings, kept through the run; absent where it uses those of an earlier layer."""
    residual_norms: dict[tuple[int, int | None, str], Tensor] = field(default_factory=dict)
    """‖residual‖ of each row (rows,), by call, layer (None for the sum of all) and block name."""
    feature_norms: dict[tuple[int, str], Tensor] = field(default_factory=dict)
    """‖feature it is added to‖ of each row (rows,), by call and block name; absent where the model does not show it."""
    calls: int = 0
    unread: dict[int, Tensor] = field(default_factory=dict)
    """By call: the sampler's sigma (1,) where it is still on the device, so that `LayerStep.sigma` and `step` are not known."""
    sampler_sigmas: tuple[float, ...] = ()
    """Those of the run's steps and its end; empty where the sampler was given none."""
    waited_early: set[int] = field(default_factory=set)
    """Calls beside the model whose residuals another control read before the model ran."""

    def next_call(self) -> int:
        """The number of a call that begins."""
        self.calls += 1
        return self.calls - 1

    def read_sigmas(self) -> None:
        """Fills in sigma and step of each entry: one wait for the device, for all that were not read before."""
        if not self.unread:
            return
        found = dict(zip(self.unread, torch.cat(list(self.unread.values())).tolist(), strict=True))
        self.unread.clear()
        known = len(self.sampler_sigmas) > 1
        for number, entry in enumerate(self.steps):
            if entry.call in found:
                sigma = found[entry.call]
                place = step_of(sigma, self.sampler_sigmas) if known else math.nan
                self.steps[number] = replace(entry, sigma=sigma, step=place)

    def step_numbers(self) -> dict[int, int]:
        """The sampler's step, from 1, of every call: samplers of higher order, areas and windows call more than once in a step.

        Without a list of sigmas each new sigma counts as a step.
        """
        self.read_sigmas()
        if self.sampler_steps is not None:
            last = self.sampler_steps
            return {entry.call: min(last, int(entry.step * last + 1e-4) + 1) for entry in self.steps}
        sigmas = {sigma: number for number, sigma in enumerate(dict.fromkeys(entry.sigma for entry in self.steps), 1)}
        return {entry.call: sigmas[entry.sigma] for entry in self.steps}

    @property
    def step_count(self) -> int:
        """Steps of the run as `step_numbers` counts them."""
        return self.sampler_steps or max(self.step_numbers().values(), default=0)
