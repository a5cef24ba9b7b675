"""A stand-in for a device that computes later, so that a CPU shows what would be read too early there.

What is computed inside of its `work` is full of NaN outside of it until somebody has waited, like memory that a kernel on another stream has yet to
write: the sums that the UNet gets, residuals that are kept for later steps, embeddings of hints. What one network computes is NaN for the others,
since each has its own stream. A picture that equals the plain path's shows that everybody waited who had to.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from control_composer.control import control, lanes
from control_composer.control.lane import Job, Lane, Ticket
from control_composer.residuals.residuals import Residuals

ALL_BITS = 255
"""In each byte of a float of any width: NaN."""


@dataclass
class Made:
    """The storage of a tensor that was made in the lane, and its bytes while they are hidden."""

    storage: StorageWeakRef
    launch: int
    stream: Hashable
    bytes: Any = None

    def hide(self) -> None:
        storage = torch.UntypedStorage._new_with_weak_ptr(self.storage.cdata)
        if storage is not None and self.bytes is None:
            # Not by torch, which would tell LateMemory.
            self.bytes = ctypes.string_at(storage.data_ptr(), storage.nbytes())
            ctypes.memset(storage.data_ptr(), ALL_BITS, storage.nbytes())

    def show(self) -> None:
        storage = torch.UntypedStorage._new_with_weak_ptr(self.storage.cdata)
        if storage is not None and self.bytes is not None:
            ctypes.memmove(storage.data_ptr(), self.bytes, storage.nbytes())
        self.bytes = None


@dataclass
class Failure:
    """An error at the n-th operation of a launch, both from 1."""

    error: BaseException
    launch: int
    operation: int = 1


class LateMemory(TorchDispatchMode):  # type: ignore[misc]
    """Knows every tensor of floats that is made while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, Made] = {}
        self.launch = 0
        self.operation = 0
        self.stream: Hashable = None
        self.failures: list[Failure] = []
        self.ours: dict[int, StorageWeakRef] = {}
        """Every storage that an operation in the lane made."""
        self.read: dict[int, tuple[StorageWeakRef, str, tuple[int, ...]]] = {}
        """Those that were made elsewhere and read in it; by which operation, and the shape of the tensor."""
        self.written: list[str] = []
        """Operations that changed a tensor that was made elsewhere."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operation += 1
        for failure in self.failures:
            if (failure.launch, failure.operation) == (self.launch, self.operation):
                raise failure.error
        given = {storage_of(value): value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
        for key, value in given.items():
            if not known(self.ours, key) and func is not torch.ops.aten.lift_fresh.default:
                reference = StorageWeakRef(value.untyped_storage())
                self.read.setdefault(key, (reference, str(func), tuple(value.shape)))
                self.written += [str(func)] * (func._schema.is_mutable and value is args[0])
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if not isinstance(value, Tensor) or known(self.ours, storage_of(value)):
                continue
            new = storage_of(value) not in given
            if new or func is torch.ops.aten.lift_fresh.default:
                reference = StorageWeakRef(value.untyped_storage())
                self.ours[reference.cdata] = reference
                if new and value.is_floating_point():
                    self.made[reference.cdata] = Made(reference, self.launch, self.stream)
        return out

    def alive(self) -> list[Made]:
        for key in [key for key, storage in self.ours.items() if storage.expired()]:
            del self.ours[key]
            self.made.pop(key, None)
        return list(self.made.values())

    def hide(self, which: Callable[[Made], bool]) -> None:
        """Those that `which` is true for become NaN, all others what they are."""
        for made in self.alive():
            made.hide() if which(made) else made.show()

    def arrive(self, launch: int) -> None:
        """What was made in launches up to this one is there for good."""
        for key, made in list(self.made.items()):
            if made.launch <= launch:
                made.show()
                del self.made[key]


def storage_of(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def known(storages: dict[int, StorageWeakRef], key: int) -> bool:
    """Whether a storage that is alive is among these; others at its address are forgotten."""
    if key in storages and storages[key].expired():
        del storages[key]
    return key in storages


@dataclass(eq=False)
class LateTicket(Ticket):
    lane: LateLane
    launch: int
    error: BaseException | None
    waited: bool = False

    def wait(self) -> None:
        self.lane.asked += 1
        comfy.model_management.throw_exception_if_processing_interrupted()
        if self.error is not None:
            raise self.error
        if self.waited:
            return
        self.waited = True
        self.lane.waits += 1
        self.lane.memory.arrive(self.launch)


class LateLane(Lane):
    """Computes at once what it is told and shows it to those who wait.

    `launches` counts its `work`, `passes` what its networks evaluated, `asked` how often somebody waited, `waits` what was really waited for.
    """

    beside = True

    def __init__(self) -> None:
        super().__init__()
        self.memory = LateMemory()
        self.launches = self.passes = self.asked = self.waits = self.given_up = 0
        self.tickets = 0
        self._waiting_failures: dict[int, BaseException] = {}
        self.inputs: list[list[StorageWeakRef]] = []
        self.used = True

    # -- what a test tells it ----------------------------------------------------------------------------------------------------------

    def fail(self, error: BaseException, launch: int = 1, operation: int = 20) -> None:
        """At this operation of this launch from now on, `error` is raised inside of the work."""
        self.memory.failures.append(Failure(error, self.launches + launch, operation))

    @contextmanager
    def unused(self) -> Iterator[None]:
        """Runs that begin inside are in line."""
        self.used = False
        try:
            yield
        finally:
            self.used = True

    def fail_waiting(self, error: BaseException, ticket: int = 1) -> None:
        """Whoever waits for the n-th ticket from now on gets `error`."""
        self._waiting_failures[self.tickets + ticket] = error

    # -- what a control asks of it -----------------------------------------------------------------------------------------------------

    @contextmanager
    def work(self, inputs: Sequence[Tensor]) -> Iterator[None]:
        memory = self.memory
        self.launches += 1
        self.inputs.append([StorageWeakRef(tensor.untyped_storage()) for tensor in inputs])
        memory.launch, memory.operation, memory.stream = self.launches, 0, None
        memory.hide(lambda _: False)
        try:
            with memory:
                yield
        finally:
            memory.hide(lambda _: True)

    def networks(self, jobs: Iterable[Job]) -> Iterator[Residuals]:
        memory, found = self.memory, []
        forked = set(memory.made)
        try:
            for key, job in jobs:
                memory.stream = key
                memory.hide(lambda made, key=key: made.storage.cdata not in forked and made.stream != key)  # type: ignore[misc]
                found.append(job())
        finally:
            memory.stream = None
            memory.hide(lambda _: False)
        while found:
            yield found.pop(0)

    def residuals(self, network: Any, inputs: Any) -> tuple[Residuals, str]:
        self.passes += 1
        return super().residuals(network, inputs)

    def handed(self, total: Residuals) -> tuple[Residuals, Ticket | None]:
        self.tickets += 1
        return total, LateTicket(self, self.launches, self._waiting_failures.get(self.tickets))

    def give_up(self) -> None:
        self.given_up += 1
        self.memory.arrive(self.launches)


def choose(monkeypatch: Any, *choice: LateLane) -> None:
    """Controls take a late lane on a CPU where they would take a CUDA device's, and step aside where they would. Of several each control has its own."""
    of_control: dict[int, LateLane] = {}

    def lane_of(layers: Any, step: Any) -> Lane:
        lane = of_control.setdefault(id(layers), choice[len(of_control) % len(choice)])
        why = lanes.why_in_line(layers, step, torch.device("cuda")) if lane.used else "not used"
        return lane if why is None else Lane(why)

    monkeypatch.setattr(lanes, "MEASURED", ((0, 0),))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _=None: (0, 0))
    monkeypatch.setattr(control, "lane_of", lane_of)
