"""Sampling runs of the host that are open side by side, so that steps of each can take turns."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from .heads import watched
from .launches import Launches, launches_of, mean_of
from .memory import Memory, memory_of

Step = Callable[[Tensor, Tensor], Tensor]
"""A run's own evaluation of the model under both conditionings and CFG: latent (B, C, h, w) and sigma (B,) to the denoised latent."""

Profile = Callable[[Sequence[Callable[[], Tensor]]], None]
"""Gets steps that nobody times and may do with them what it likes."""

CFG = 7.0
SAMPLED = 0.8
"""The part of a sampling that the sigmas come from, as if a second sampler did the rest; so that a range can lie after them."""
WARM_UP = 2
"""Steps of each run before those that count: the first embeds the hints, both measure memory."""
PROFILED = 2
"""Further steps of the one run that is profiled."""


@dataclass(eq=False)
class Measured:
    """What one variant took. `batches` are the rows of each evaluation of the UNet in a step; `result` is that of the last warm-up step.

    `warm_up` are the seconds of the steps whose memory was measured. `launches` is the mean of a step's, `settled` the most of such a step's
    memory, on CUDA alone: what was recorded at the second step runs there. Of each step that counts: `seconds`, and how many of them the host spent in
    `get_control`.
    """

    first: Memory
    later: Memory
    batches: tuple[int, ...]
    result: Tensor
    warm_up: tuple[float, ...]
    launches: Launches | None = None
    settled: int = 0
    seconds: list[float] = field(default_factory=list)
    control_seconds: list[float] = field(default_factory=list)

    @property
    def peak(self) -> int:
        """Bytes of a step beside the weights, what the run keeps from step to step among them."""
        return max(self.first.kept + self.later.peak, self.kept + self.settled)

    @property
    def kept(self) -> int:
        """Bytes that two steps leave."""
        return self.first.kept + self.later.kept


class Held:
    """A sampler for the host that hands its run's step to `inside` and ends when that returns."""

    def __init__(self, inside: Callable[[Step], None]) -> None:
        self.inside = inside

    def sample(
        self, model_wrap: Any, sigmas: Tensor, extra_args: dict[str, Any], callback: Any, noise: Tensor, *_: Any
    ) -> Tensor:
        self.inside(lambda x, sigma: model_wrap(x, sigma, **extra_args))
        return noise


def hold_open(
    guiders: Sequence[Any],
    noise: Tensor,
    sigmas: Tensor,
    inside: Callable[[Sequence[Step]], None],
    steps: tuple[Step, ...] = (),
) -> None:
    """Calls `inside` with the step of each guider. The runs are nested: each is begun by the host within the one before it."""
    if len(steps) == len(guiders):
        inside(steps)
        return
    sampler = Held(lambda step: hold_open(guiders, noise, sigmas, inside, (*steps, step)))
    guiders[len(steps)].sample(noise, torch.zeros_like(noise), sampler, sigmas, disable_pbar=True, seed=0)


def measure(
    model: Any,
    conditionings: Mapping[str, tuple[Any, Any]],
    pixels: int,
    rounds: int,
    tell: Callable[[str], None] = lambda line: None,
    clock: Callable[[], float] = time.perf_counter,
    *,
    batch: int = 1,
    periods: Mapping[str, int] | None = None,
    warm: Sequence[str] = (),
    profile: tuple[str, Profile] | None = None,
) -> dict[str, Measured]:
    """Time of `rounds` steps of each pair of conditionings, taking turns, and memory and launches of steps before them.

    Everybody gets the same `batch` latents and sigma in one round, and others in the next. `clock` tells seconds. `periods` says after how many steps
    a variant does the same again (1 where it does not say), so that launches are the mean of that many. Variants in `warm` take a step in a run of
    its own before all, so that what a library sets up once in a process is in nobody's first step. `profile` names a run and gets two more of its steps. The
    last round is the run's last step, which reuse evaluates.
    """
    batches: list[int] = []

    def counted(apply_model: Any, call: dict[str, Any]) -> Any:
        batches.append(int(call["input"].shape[0]))
        return apply_model(call["input"], call["timestep"], **call["c"])

    model = model.clone()
    model.set_model_unet_function_wrapper(counted)
    device: torch.device = model.load_device
    sampling = model.get_model_object("model_sampling")
    period_of = {name: (periods or {}).get(name, 1) for name in conditionings}
    looked = WARM_UP + max(period_of.values())
    begin = looked + (PROFILED if profile else 0)
    count = begin + rounds
    sigmas = comfy.samplers.calculate_sigmas(sampling, "normal", round(count / SAMPLED))[: count + 1]
    generator = torch.Generator().manual_seed(pixels)
    noises = torch.randn(count, batch, 4, pixels // 8, pixels // 8, generator=generator)
    results: dict[str, Measured] = {}

    def evaluation(step: Step, index: int) -> Callable[[], Tensor]:
        sigma = sigmas[index].to(device).repeat(batch)
        noise = noises[index].to(device)
        x = sampling.noise_scaling(sigma, noise, torch.zeros_like(noise))
        return lambda: step(x, sigma)

    def settling(one: Measured, call: Callable[[], Tensor]) -> Callable[[], object]:
        def measured() -> None:
            _, memory = memory_of(call, device)
            one.settled = max(one.settled, memory.peak)

        return measured if device.type == "cuda" else call

    def warmed(steps: Sequence[Step]) -> None:
        for step in steps:
            evaluation(step, 0)()

    def inside(steps: Sequence[Step]) -> None:
        named = dict(zip(conditionings, steps, strict=True))
        for name, step in named.items():
            tell(f"{pixels} px, batch {batch}, memory of {name}")
            watch = Watch(device, clock)
            _, first = memory_of(watch.around(evaluation(step, 0)), device)
            batches.clear()
            result, later = memory_of(watch.around(evaluation(step, 1)), device)
            results[name] = Measured(first, later, tuple(batches), result.float().cpu(), tuple(watch.seconds))
            counts = [evaluation(step, index) for index in range(WARM_UP, WARM_UP + period_of[name])]
            results[name].launches = mean_of([launches_of(settling(results[name], call), device) for call in counts])
        if profile:
            name, look = profile
            look([evaluation(named[name], index) for index in range(looked, begin)])
        with ExitStack() as stack:
            heads = {name: stack.enter_context(watched(pair, clock)) for name, pair in conditionings.items()}
            for index in range(begin, count):
                tell(f"{pixels} px, batch {batch}, round {index - begin + 1} of {rounds}")
                first_in_turn = index % len(named)  # no variant always comes after the same one's beginning
                for name in [*named][first_in_turn:] + [*named][:first_in_turn]:
                    heads[name].seconds = 0.0
                    results[name].seconds.append(seconds_of(evaluation(named[name], index), device, clock))
                    results[name].control_seconds.append(heads[name].seconds)

    def guider(name: str) -> Any:
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(*conditionings[name])
        guider.set_cfg(CFG)
        return guider

    if warm:
        hold_open([guider(name) for name in warm], noises[0], sigmas, warmed)
    hold_open([guider(name) for name in conditionings], noises[0], sigmas, inside)
    return results


class Watch:
    """Seconds of calls, until the device has finished."""

    def __init__(self, device: torch.device, clock: Callable[[], float]) -> None:
        self.device, self.clock = device, clock
        self.seconds: list[float] = []

    def around(self, call: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def timed() -> Tensor:
            finish(self.device)
            start = self.clock()
            result = call()
            finish(self.device)
            self.seconds.append(self.clock() - start)
            return result

        return timed


def seconds_of(call: Callable[[], Tensor], device: torch.device, clock: Callable[[], float]) -> float:
    """Time of the call until the device has finished, without Python's collector of garbage, which runs before."""
    with without_collector():
        finish(device)
        start = clock()
        call()
        finish(device)
        return clock() - start


@contextmanager
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
