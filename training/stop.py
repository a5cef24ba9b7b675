"""Asking a training to stop, as a terminal (Ctrl-C) and a cluster do."""

from __future__ import annotations

import signal
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """From `listen` on the first SIGINT or SIGTERM only sets `number`; a second one does what it did before."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self) -> bool:
        return self.number != 0

    @property
    def status(self) -> int:
        """What a shell calls the end by this signal."""
        return 128 + self.number

    def listen(self) -> None:
        before = {number: signal.getsignal(number) for number in SIGNALS}

        def asked(number: int, _: FrameType | None) -> None:
            self.number = number
            for each, handler in before.items():
                signal.signal(each, handler)

        for number in SIGNALS:
            signal.signal(number, asked)
