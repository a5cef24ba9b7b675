"""One pass of a network as a CUDA graph: recorded once, then launched as a whole."""

from __future__ import annotations

import gc
import threading
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakSet

import comfy.model_management
import torch
from torch import Tensor

from ..residuals.residuals import PLACES, Residuals
from .network import NetworkInputs

Compute = Callable[[NetworkInputs], Residuals]

WARM_UP_PASSES = 2
"""Before a recording: libraries choose algorithms, load kernels and take workspaces in the first one."""
ALIGNMENT = 64
"""In numbers: each residual begins where wide loads may begin."""

RECORDING = threading.Lock()
"""The asynchronous allocator knows one recording at a time in a process, and a GPU's thread may not wait for another's."""


LIVE: defaultdict[torch.cuda.Stream, WeakSet[CudaGraph]] = defaultdict(WeakSet)
"""The recordings of each stream. They end together: newer versions of torch free the workspaces of a stream, which all of its recordings have in them,
when one of them is given up (pytorch/pytorch#193402)."""


class Here(threading.local):
    """What tells threads apart for good, as their numbers do not: workspaces of newer versions of torch end with their thread (pytorch/pytorch#180283)."""

    def __init__(self) -> None:
        self.token = object()


HERE = Here()


@contextmanager
def alone() -> Iterator[None]:
    """One recording at a time, and no collection of garbage in it, which would free memory that is not of the recording."""
    with RECORDING:
        collecting = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if collecting:
                gc.enable()


def forget_frames(problem: BaseException) -> None:
    """Frees what the functions that `problem` has left still hold."""
    seen: BaseException | None = problem
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__cause__ or seen.__context__


def narrowed(tensor: Tensor) -> Tensor:
    """The same without repetition: one of each row that `expand` has made many of."""
    for dim, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        if size > 1 and stride == 0:
            tensor = tensor.narrow(dim, 0, 1)
    return tensor


class StaticInput:
    """A tensor that stays where it is and is read like another one: same shape, dtype and strides, or kernels of other kinds would be chosen."""

    def __init__(self, like: Tensor) -> None:
        base = narrowed(like)
        self._base = torch.empty_strided(base.shape, base.stride(), dtype=like.dtype, device=like.device)
        self.tensor = self._base.expand(like.shape)

    def take(self, tensor: Tensor) -> None:
        self._base.copy_(narrowed(tensor))


class CudaRecorder:
    """What the graphs of one module share: a stream, on which all of them are recorded and run, one after the other, and so one pool of memory.

    A recording has the addresses of its stream's workspaces in it, so it never runs on another one, where that stream might be at work at the same time.
    """

    def __init__(self, device: torch.device) -> None:
        here = torch.cuda.current_stream(device)
        # Nothing can be recorded on the default stream.
        self.stream = torch.cuda.Stream(device) if here == torch.cuda.default_stream(device) else here
        self._graphs: WeakSet[CudaGraph] = WeakSet()

    def pool(self) -> Any:
        """That of the graphs there are; a new one where there is none, because torch does not take up a pool that nobody uses any more."""
        return (
            next((pool for graph in self._graphs if (pool := graph.pool()) is not None), None)
            or torch.cuda.graph_pool_handle()
        )

    @staticmethod
    def recording(device: torch.device) -> bool:
        """Whether somebody is recording the current stream."""
        return bool(torch.cuda.is_current_stream_capturing())

    @staticmethod
    def room(device: torch.device) -> int:
        """Bytes that a recording may take on the device: it cannot use what torch keeps for other streams."""
        free, kept = comfy.model_management.get_free_memory(device, torch_free_too=True)
        return int(free - kept)

    def graph(self, inputs: NetworkInputs) -> CudaGraph:
        graph = CudaGraph(inputs, self)
        self._graphs.add(graph)
        return graph


class CudaGraph:
    """A pass for inputs of one kind: `warm_up`, `capture`, then `replay` as often as wanted.

    Inputs and residuals have memory of their own outside of the recording's pool, which holds only what is between them.
    """

    def __init__(self, inputs: NetworkInputs, recorder: CudaRecorder) -> None:
        self._recorder, self._stream = recorder, recorder.stream
        self._thread = HERE.token
        self._graph: torch.cuda.CUDAGraph | None = None
        with self._inside():
            self._x, self._hint, self._timesteps, self._context = (
                StaticInput(tensor) for tensor in (inputs.x, inputs.hint_embedding, inputs.timesteps, inputs.context)
            )
            self._y = None if inputs.y is None else StaticInput(inputs.y)
        self._inputs = NetworkInputs(
            self._x.tensor,
            self._hint.tensor,
            self._timesteps.tensor,
            self._context.tensor,
            None if self._y is None else self._y.tensor,
            inputs.types,
        )
        self._places: list[tuple[int, tuple[int, ...], tuple[int, ...], int]] = []
        self._flat: Tensor | None = None

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """On the recording's stream, after what the current one was given; the current one goes on after it."""
        here = torch.cuda.current_stream(self._stream.device)
        if here != self._stream:
            self._stream.wait_stream(here)
        # Normal tensors can be written to in every mode, those of inference mode only in it.
        try:
            with torch.cuda.stream(self._stream), torch.inference_mode(False), torch.no_grad():
                yield
        finally:
            if here != self._stream:
                here.wait_stream(self._stream)

    def _take(self, inputs: NetworkInputs) -> None:
        self._x.take(inputs.x)
        self._hint.take(inputs.hint_embedding)
        self._timesteps.take(inputs.timesteps)
        self._context.take(inputs.context)
        if self._y is not None and inputs.y is not None:
            self._y.take(inputs.y)

    def warm_up(self, compute: Compute, inputs: NetworkInputs) -> None:
        """Plain passes on the recording's stream. Raises what they raise."""
        with self._inside():
            self._take(inputs)
            for _ in range(WARM_UP_PASSES):
                with torch.inference_mode():
                    residuals = compute(self._inputs)
                if self._flat is None:
                    self._lay_out(residuals)
                del residuals

    def _lay_out(self, residuals: Residuals) -> None:
        """Makes the memory for the residuals: one after the other, each with the strides that it has without a graph."""
        end, kinds = 0, set()
        for number, place in enumerate(PLACES):
            for residual in getattr(residuals, place):
                strides = torch.empty_like(residual, device="meta").stride()
                self._places.append((number, tuple(residual.shape), strides, end))
                end += -(-residual.numel() // ALIGNMENT) * ALIGNMENT
                kinds.add((residual.dtype, residual.device))
        if len(kinds) != 1:
            raise TypeError(f"residuals of several kinds: {kinds}")
        ((dtype, device),) = kinds
        self._flat = torch.empty(end, dtype=dtype, device=device)

    def _compute(self, compute: Compute) -> None:
        """A pass into the memory for the residuals; what it needs in between is free again when it returns."""
        assert self._flat is not None
        with torch.inference_mode():
            residuals = compute(self._inputs)
            for (_, _, residual), (_, shape, strides, start) in zip(residuals.items(), self._places, strict=True):
                assert residual is not None
                self._flat.as_strided(shape, strides, start).copy_(residual)

    def capture(self, compute: Compute) -> None:
        """Records a pass, without running it. Raises what it raises, with the recording ended and nothing of it left."""
        graph = torch.cuda.CUDAGraph()
        with self._inside(), alone():
            self._stream.synchronize()
            pool = self._recorder.pool()
            graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            try:
                self._compute(compute)
            except BaseException as problem:
                # What is freed after the end of a failed recording upsets the asynchronous allocator.
                forget_frames(problem)
                with suppress(Exception):
                    self._end(graph, pool)
                with suppress(Exception):
                    self._end_all(graph)
                    self._stream.synchronize()
                raise
            self._end(graph, pool)
        self._graph = graph
        LIVE[self._stream].add(self)

    def _end(self, graph: torch.cuda.CUDAGraph, pool: Any) -> None:
        try:
            graph.capture_end()
        except Exception:
            # Torch leaves its allocator in the recording if CUDA says that the recording is spoilt.
            with suppress(Exception):
                torch._C._cuda_endAllocateToPool(self._stream.device.index, pool)
            raise

    def pool(self) -> Any:
        """The memory of the recording, for others that never run at the same time; None where there is none."""
        return None if self._graph is None else self._graph.pool()

    @property
    def stale(self) -> bool:
        """Whether it may not be replayed any more: it was given up, or belongs to another thread."""
        return self._graph is None or self._thread is not HERE.token

    def replay(self, inputs: NetworkInputs) -> Residuals:
        """The residuals for inputs of the same kind, in new memory of the current stream."""
        assert self._graph is not None and self._flat is not None
        with self._inside():
            self._take(inputs)
            self._graph.replay()
        flat = self._flat.clone()
        here = torch.cuda.current_stream(self._stream.device)
        if here != self._stream:
            self._stream.wait_stream(here)  # the next replay overwrites what is being copied
        lists: tuple[list[Tensor], ...] = ([], [], [])
        for number, shape, strides, start in self._places:
            lists[number].append(flat.as_strided(shape, strides, start))
        return Residuals(**{place: tuple(lists[number]) for number, place in enumerate(PLACES)})

    def discard(self) -> None:
        """Gives the recording's memory back, and with it all recordings of its stream. Launched passes finish."""
        if self._graph is not None:
            self._end_all(self._graph)
            self._graph = None

    def _end_all(self, graph: torch.cuda.CUDAGraph) -> None:
        graph.reset()
        for other in LIVE.pop(self._stream, ()):
            other._graph = None  # nobody else holds it

    def __del__(self) -> None:
        with suppress(Exception):  # at the end of the process nothing is there to be given back to
            self.discard()
