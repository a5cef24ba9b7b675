"""The controls that the host asks while it samples, watched: how long `get_control` keeps it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any


@dataclass(eq=False)
class HeadTime:
    """Seconds within `get_control` since it was last set to 0: on a GPU until everything is launched, on a CPU until it is computed."""

    seconds: float = 0.0


@contextmanager
def watched(
    conditionings: Sequence[Any],
    clock: Callable[[], float],
    around: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Iterator[HeadTime]:
    """Counts for all controls of the conditionings, `around` each call of theirs. What comes before a control in its chain is within its own call."""
    heads = {
        id(head): head
        for conditioning in conditionings
        for _, values in conditioning
        if (head := values.get("control"))
    }
    time = HeadTime()

    def wrapped(inner: Callable[..., Any]) -> Callable[..., Any]:
        def get_control(*given: Any, **named: Any) -> Any:
            start = clock()
            try:
                with around():
                    return inner(*given, **named)
            finally:
                time.seconds += clock() - start

        return get_control

    before = {key: vars(head).get("get_control") for key, head in heads.items()}
    for head in heads.values():
        head.get_control = wrapped(head.get_control)
    try:
        yield time
    finally:
        # A function that holds its own control would keep the network alive.
        for key, head in heads.items():
            if before[key] is None:
                del head.get_control
            else:
                head.get_control = before[key]


def lanes_of(conditionings: Sequence[Any]) -> dict[str, int]:
    """How many evaluations of networks of our layers went which way in the last run, in the words of the report."""
    found: dict[str, int] = {}
    records = {
        id(record): record
        for conditioning in conditionings
        for _, values in conditioning
        if (record := getattr(values.get("control"), "record", None)) is not None
    }
    for entry in (entry for record in records.values() for entry in record.steps):
        if entry.ran and entry.held_from is None:
            words = ", ".join(filter(None, ("beside the model" if entry.beside else "before the model", entry.lane)))
            found[words] = found.get(words, 0) + 1
    return found
