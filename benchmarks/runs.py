"""Sampling runs of the host that are open side by side, so that steps of each can take turns."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from .memory import Memory, memory_of

Step = Callable[[Tensor, Tensor], Tensor]
"""A run's own evaluation of the model under both conditionings and CFG: latent (1, C, h, w) and sigma (1,) to the denoised latent."""

CFG = 7.0
SAMPLED = 0.8
"""The part of a sampling that the sigmas come from, as if a second sampler did the rest; so that a range can lie after them."""
WARM_UP = 2
"""Steps of each run before those that count: the first embeds the hints, both measure memory."""


@dataclass(eq=False)
class Measured:
    """What one variant took. `batches` are the rows of each evaluation of the UNet in a step; `result` is that of the last warm-up step."""

    first: Memory
    later: Memory
    batches: tuple[int, ...]
    result: Tensor
    seconds: list[float] = field(default_factory=list)

    @property
    def peak(self) -> int:
        """Bytes of a step beside the weights, what the run keeps from step to step among them."""
        return self.first.kept + self.later.peak


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
) -> dict[str, Measured]:
    """Time of `rounds` steps of each pair of conditionings, taking turns, and memory of two steps before them.

    Everybody gets the same latent and sigma in one round, and others in the next. `clock` tells seconds.
    """
    batches: list[int] = []

    def counted(apply_model: Any, call: dict[str, Any]) -> Any:
        batches.append(int(call["input"].shape[0]))
        return apply_model(call["input"], call["timestep"], **call["c"])

    model = model.clone()
    model.set_model_unet_function_wrapper(counted)
    device: torch.device = model.load_device
    sampling = model.get_model_object("model_sampling")
    count = WARM_UP + rounds
    sigmas = comfy.samplers.calculate_sigmas(sampling, "normal", round(count / SAMPLED))[: count + 1]
    generator = torch.Generator().manual_seed(pixels)
    noises = torch.randn(count, 1, 4, pixels // 8, pixels // 8, generator=generator)
    results: dict[str, Measured] = {}

    def inside(steps: Sequence[Step]) -> None:
        named = dict(zip(conditionings, steps, strict=True))

        def evaluation(name: str, index: int) -> Callable[[], Tensor]:
            sigma = sigmas[index : index + 1].to(device)
            x = sampling.noise_scaling(sigma, noises[index].to(device), torch.zeros_like(noises[index], device=device))
            return lambda: named[name](x, sigma)

        for name in named:
            tell(f"{pixels} px, memory of {name}")
            _, first = memory_of(evaluation(name, 0), device)
            batches.clear()
            result, later = memory_of(evaluation(name, 1), device)
            results[name] = Measured(first, later, tuple(batches), result.float().cpu())
        for index in range(WARM_UP, count):
            tell(f"{pixels} px, round {index - WARM_UP + 1} of {rounds}")
            first_in_turn = index % len(named)  # no variant always comes after the same one's beginning
            for name in [*named][first_in_turn:] + [*named][:first_in_turn]:
                results[name].seconds.append(seconds_of(evaluation(name, index), device, clock))

    guiders = []
    for positive, negative in conditionings.values():
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(positive, negative)
        guider.set_cfg(CFG)
        guiders.append(guider)
    hold_open(guiders, noises[0], sigmas, inside)
    return results


def seconds_of(call: Callable[[], Tensor], device: torch.device, clock: Callable[[], float]) -> float:
    """Time of the call until the device has finished, without Python's collector of garbage, which runs before."""
    gc.collect()
    gc.disable()
    try:
        finish(device)
        start = clock()
        call()
        finish(device)
        return clock() - start
    finally:
        gc.enable()


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
