"""The lane beside the model on a CUDA device: side streams, and graphs in place of a thousand launches."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import comfy.model_management
import torch
from torch import Tensor

from ..residuals.residuals import Residuals
from .graphs import drop_graphs, run_network
from .lane import Job, Lane, Ticket
from .network import EncoderNetwork, NetworkInputs


@cache
def side_stream(device: torch.device, number: int) -> torch.cuda.Stream:
    """One of the streams beside the model's. Kept for good: torch keeps freed memory for the stream that had it."""
    return torch.cuda.Stream(device)


class CudaTicket(Ticket):
    """An event behind the last kernel of a call, and the residuals that it makes valid."""

    def __init__(self, event: torch.cuda.Event, tensors: Sequence[Tensor]) -> None:
        self._event: torch.cuda.Event | None = event
        self._tensors = tuple(tensors)

    def wait(self) -> None:
        """Orders the current stream after the work; the host goes on at once."""
        if self._event is not None:
            stream = torch.cuda.current_stream(self._tensors[0].device)
            stream.wait_event(self._event)
            for tensor in (
                self._tensors
            ):  # Their memory belongs to a side stream, which may not have it back before this one has read it.
                tensor.record_stream(stream)
            self._event, self._tensors = None, ()
        comfy.model_management.throw_exception_if_processing_interrupted()


class CudaLane(Lane):
    """Beside the model: launched before it, on side streams of the device, a stream for each network; the model's stream waits when it pops.

    What crosses streams, by torch's rules for its allocators: tensors from outside are recorded on each stream that reads them; the side stream begins
    after all that the model's stream was given so far, so whatever that has read by then may be used again.
    """

    beside = True

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.stream = side_stream(device, 0)
        self._streams: dict[Hashable, torch.cuda.Stream] = {}
        self._inputs: tuple[Tensor, ...] = ()

    @contextmanager
    def work(self, inputs: Sequence[Tensor]) -> Iterator[None]:
        caller = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(caller)
        self._inputs = tuple(tensor for tensor in inputs if tensor.device == self.device)
        for tensor in self._inputs:
            tensor.record_stream(self.stream)
        try:
            with torch.cuda.stream(self.stream):
                yield
        except BaseException:
            for stream in {self.stream, *self._streams.values()}:
                caller.wait_stream(stream)
            raise
        finally:
            self._inputs = ()

    def networks(self, jobs: Iterable[Job]) -> Iterator[Residuals]:
        begin = self.stream.record_event()
        begun: list[tuple[Residuals, torch.cuda.Event]] = []
        for key, job in jobs:
            stream = self._stream_of(key)
            if stream != self.stream:
                stream.wait_event(begin)
                for tensor in self._inputs:
                    tensor.record_stream(stream)
            with torch.cuda.stream(stream):
                begun.append((job(), stream.record_event()))
        while begun:
            residuals, done = begun.pop(0)
            self.stream.wait_event(done)
            for _, _, residual in residuals.items():
                if residual is not None:
                    residual.record_stream(self.stream)
            yield residuals

    def _stream_of(self, key: Hashable) -> torch.cuda.Stream:
        """The first network's is the one that also adds up."""
        return self._streams.setdefault(key, side_stream(self.device, len(self._streams)))

    def residuals(self, network: EncoderNetwork, inputs: NetworkInputs) -> tuple[Residuals, str]:
        return run_network(network, inputs)

    def handed(self, total: Residuals) -> tuple[Residuals, Ticket | None]:
        tensors = [residual for _, _, residual in total.items() if residual is not None]
        return total, CudaTicket(self.stream.record_event(), tensors) if tensors else None

    def give_up(self) -> None:
        torch.cuda.synchronize(self.device)
        drop_graphs()
        comfy.model_management.soft_empty_cache()
