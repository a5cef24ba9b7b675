"""Memory of one call, beside what stood before it.

On CUDA: what torch's allocator reports. On a CPU: the sum of what torch's allocator gives out and takes back, which its profiler tells. That is the
same number at every run, which the resident set is not, and leaves out only what a library (oneDNN, MKL) allocates by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(frozen=True)
class Memory:
    """Bytes over those before the call: the most at any moment, and what is kept after it, its result not counted."""

    peak: int
    kept: int


def memory_of(call: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, Memory]:
    """The call's result and its memory."""
    return on_cuda(call, device) if device.type == "cuda" else on_cpu(call)


def on_cuda(call: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, Memory]:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = call()
    torch.cuda.synchronize(device)
    peak, after = torch.cuda.max_memory_allocated(device), torch.cuda.memory_allocated(device)
    return result, Memory(peak - before, after - before - result.nbytes)


def on_cpu(call: Callable[[], Tensor]) -> tuple[Tensor, Memory]:
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        result = call()
    events = [event for event in profile.kineto_results.events() if event.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return result, Memory(peak, alive - result.nbytes)


def alive_on_cpu(call: Callable[[], Tensor], mark: str) -> tuple[Tensor, int, list[int]]:
    """The call's result, its peak, and the bytes alive at each beginning of a `torch.profiler.record_function` named `mark`, over those before it."""
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        result = call()
    events = [event for event in profile.kineto_results.events() if event.name() in ("[memory]", mark)]
    alive = peak = 0
    marked = []
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.name() == mark:
            marked.append(alive)
            continue
        alive += event.nbytes()
        peak = max(peak, alive)
    return result, peak, marked


class Tensors(TorchDispatchMode):
    """Within it, the most bytes of tensors that were alive at a time, but for those of `known`. Works without a device, on tensors that are "meta"."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._known = [tensor.untyped_storage() for tensor in known]
        self._known_keys = {storage._cdata for storage in self._known}
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for value in _pytree.tree_leaves(result):
            if isinstance(value, Tensor):
                storage = value.untyped_storage()
                if storage._cdata not in self._known_keys:
                    self._alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._alive = {key: one for key, one in self._alive.items() if not one[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return result
