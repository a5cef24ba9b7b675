"""How much work a call hands to the device, piece by piece.

On CUDA: what CUPTI saw. `launched` counts the calls of the host that put something on the device: a kernel, a copy, or a graph with all that is in
it; `kernels` counts what the device then ran. Without graphs the two differ by the copies. On a CPU: the operators that reach torch's dispatcher
from Python, `kernels` None.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity
from torch.utils._python_dispatch import TorchDispatchMode

Event = dict[str, Any]
"""One of a trace in Chrome's format: "cat", "name", "ts" and "dur" in microseconds, "pid", "tid", "args"."""

ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")


@dataclass(frozen=True)
class Launches:
    """Of one call, or the mean of several."""

    launched: float
    kernels: float | None


class Counting(TorchDispatchMode):
    """Counts the operators that are dispatched within it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def launches_of(call: Callable[[], object], device: torch.device) -> Launches | None:
    """Runs `call` once; None on a GPU that cannot be watched."""
    if device.type != "cuda":
        with Counting() as counting:
            call()
        return Launches(counting.count, None)
    return launches_in(traced(call, device, [ProfilerActivity.CUDA]))


def launches_in(events: Iterable[Event]) -> Launches | None:
    """Each launch has a number that everything bears which the device did because of it. None where it did nothing."""
    done = [event for event in events if event.get("cat") in ON_DEVICE]
    numbers = {event["args"]["correlation"] for event in done if "correlation" in event.get("args", {})}
    return Launches(len(numbers), sum(event["cat"] == "kernel" for event in done)) if done else None


def mean_of(counted: Sequence[Launches | None]) -> Launches | None:
    """None where one of them is not known."""
    known = [one for one in counted if one is not None]
    if not known or len(known) < len(counted):
        return None
    kernels = [one.kernels for one in known if one.kernels is not None]
    mean = sum(kernels) / len(known) if len(kernels) == len(known) else None
    return Launches(sum(one.launched for one in known) / len(known), mean)


def traced(
    call: Callable[[], object], device: torch.device, activities: Sequence[ProfilerActivity] | None = None
) -> list[Event]:
    """What torch's profiler saw of the call, until the device had finished."""
    if activities is None:
        activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with torch.profiler.profile(activities=list(activities), acc_events=True) as profile:
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(file))
        events: list[Event] = json.loads(file.read_text(encoding="utf-8", errors="replace"))["traceEvents"]
    return events
