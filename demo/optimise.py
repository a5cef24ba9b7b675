"""The loop that all stages of the demo world's training share: AdamW, warm-up and decay, EMA, log, exact resume."""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

Draw = Callable[[torch.Generator], tuple[Tensor, ...]]
Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class Plan:
    """How long and how fast a stage learns."""

    name: str
    steps: int
    rate: float
    warm_up: int = 200
    ema: float = 0.999
    seed: int = 0
    log_every: int = 50
    save_every: int = 1000
    decay: float = 0.2  # the last share of the steps

    def rate_at(self, step: int) -> float:
        """Warm-up, a plateau, a straight decay to 1 %: a stage can be made longer without unlearning (arXiv 2405.18392)."""
        left = (self.steps - step) / (self.decay * self.steps)
        return self.rate * min(1.0, (step + 1) / self.warm_up, max(0.01, left))


def optimise(
    plan: Plan,
    modules: Sequence[nn.Module],
    draw: Draw,
    loss: Loss,
    folder: Path,
    device: torch.device,
    watch: Callable[[int], None] | None = None,
) -> None:
    """Trains `modules` in place and leaves their moving average in them.

    `draw(generator)` gives the batch of a step and `loss(*batch)` its scalar loss. Step n draws from a generator seeded with
    (plan.seed, n), so a run continued from `folder/<name>.pt` sees the same batches as one that never stopped. `watch(step)` is called with
    the averaged weights in place after steps 0, `save_every`, ... and the last. On CUDA a step is one captured graph.
    """
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    average = [p.detach().clone() for p in parameters]
    cuda = device.type == "cuda"
    rate = torch.tensor(plan.rate, device=device) if cuda else plan.rate
    optimiser = torch.optim.AdamW(
        parameters, lr=rate, betas=(0.9, 0.99), weight_decay=0.01, fused=cuda, capturable=cuda
    )
    keep = torch.tensor(0.0, device=device)

    def step_on(batch: tuple[Tensor, ...]) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=not cuda):
            value = loss(*batch)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
        optimiser.step()
        optimiser.zero_grad(set_to_none=False)
        torch._foreach_mul_(average, keep)
        torch._foreach_add_(average, torch._foreach_mul([p.detach() for p in parameters], 1 - keep))
        return value.detach()

    first = 0
    path = folder / f"{plan.name}.pt"
    if path.exists():
        state = torch.load(path, map_location=device, weights_only=True)
        first = state["step"]
        with torch.no_grad():
            for parameter, value, mean, saved in zip(
                parameters, state["parameters"], average, state["average"], strict=True
            ):
                parameter.copy_(value)
                mean.copy_(saved)
        optimiser.load_state_dict(state["optimiser"])
        log.info("%s: continues at step %d of %d", plan.name, first, plan.steps)

    run: Callable[[tuple[Tensor, ...]], Tensor] | None = None
    generator = torch.Generator(device)
    started, losses = time.monotonic(), []
    if watch is not None and first == 0:
        watch(0)
    # A graph must be captured on the stream that its warm-up ran on.
    stream = torch.cuda.Stream() if cuda else None
    if stream is not None:
        stream.wait_stream(torch.cuda.current_stream())
        torch.cuda.set_stream(stream)
    for step in range(first, plan.steps):
        batch = draw(generator.manual_seed(plan.seed * 10_000_000 + step))
        if isinstance(optimiser.param_groups[0]["lr"], Tensor):
            optimiser.param_groups[0]["lr"].fill_(plan.rate_at(step))
        else:
            optimiser.param_groups[0]["lr"] = plan.rate_at(step)
        keep.fill_(min(plan.ema, (1 + step) / (10 + step)))
        if not cuda or step < first + 3:
            losses.append(step_on(batch))
        else:
            run = run or _captured(step_on, batch, stream)
            losses.append(run(batch).clone())
        done = step + 1
        if done % plan.log_every == 0 or done == plan.steps:
            value = float(torch.stack(losses).mean())
            seconds = time.monotonic() - started
            log.info("%s: step %d of %d, loss %.5f, %.1f s", plan.name, done, plan.steps, value, seconds)
            _append(folder / f"{plan.name}.csv", done, value)
            losses = []
        if done % plan.save_every == 0 or done == plan.steps:
            with torch.no_grad():
                live = [p.detach().clone() for p in parameters]
                _save(path, done, live, average, optimiser)
                if watch is not None:
                    _assign(parameters, average)
                    watch(done)
                    _assign(parameters, live)
    with torch.no_grad():
        _assign(parameters, average)


def _captured(
    step_on: Callable[[tuple[Tensor, ...]], Tensor], batch: tuple[Tensor, ...], stream: torch.cuda.Stream | None
) -> Callable[[tuple[Tensor, ...]], Tensor]:
    static = tuple(tensor.clone() for tensor in batch)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        value = step_on(static)

    def replay(fresh: tuple[Tensor, ...]) -> Tensor:
        for into, tensor in zip(static, fresh, strict=True):
            into.copy_(tensor)
        graph.replay()
        return value

    return replay


def _assign(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)


def _save(path: Path, step: int, live: list[Tensor], average: list[Tensor], optimiser: torch.optim.Optimizer) -> None:
    unfinished = path.with_suffix(".unfinished")
    torch.save({"step": step, "parameters": live, "average": average, "optimiser": optimiser.state_dict()}, unfinished)
    unfinished.replace(path)


def _append(path: Path, step: int, value: float) -> None:
    with path.open("a", newline="") as file:
        csv.writer(file).writerow([step, f"{value:.6f}"])
