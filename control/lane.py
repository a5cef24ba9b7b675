"""Lanes: where the networks of a control run, before the model or beside it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from ..residuals.residuals import Residuals
from .network import EncoderNetwork, NetworkInputs

Job = tuple[Hashable, Callable[[], Residuals]]
"""One pass of a network: equal keys for those that must not run at the same time, and what computes its residuals."""


class Ticket(ABC):
    """Residuals that are handed out before they are there."""

    @abstractmethod
    def wait(self) -> None:
        """Returns when the caller may use them: at once where the device keeps the order. Raises what went wrong, or the host's interruption."""


class Lane:
    """In line: everything runs where and when it is called, so before the model. `words` say why it is not beside the model."""

    beside = False

    def __init__(self, words: str = "") -> None:
        self.words = words

    @contextmanager
    def work(self, inputs: Sequence[Tensor]) -> Iterator[None]:
        """Inside, all that a call computes is computed. `inputs` are the tensors it reads that were made outside."""
        yield

    def networks(self, jobs: Iterable[Job]) -> Iterator[Residuals]:
        """What the jobs give, in their order. In line each runs when it is asked for, so one set of residuals is alive at a time."""
        for _, job in jobs:
            yield job()

    def residuals(self, network: EncoderNetwork, inputs: NetworkInputs) -> tuple[Residuals, str]:
        """One pass of a network, and what the report says of the way it was run, if anything."""
        return called(network, inputs), ""

    def handed(self, total: Residuals) -> tuple[Residuals, Ticket | None]:
        """What the host gets, and what its lists must wait for."""
        return total, None

    def give_up(self) -> None:
        """Frees what the lane keeps between calls, after an error inside of `work`."""


def called(network: EncoderNetwork, inputs: NetworkInputs) -> Residuals:
    """A plain call."""
    return network.residuals(inputs.x, inputs.hint_embedding, inputs.timesteps, inputs.context, inputs.y, inputs.types)
