"""Waiting lists: the host's lists of residuals, whose tensors may still be on their way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, SupportsIndex

from torch import Tensor


class WaitingList(list["Tensor | None"]):
    """A list that calls `wait` before it gives out what it holds; its length is known without.

    The host's UNet pops. Whoever takes in another way does so before the UNet runs: a stock control behind ours merges its residuals with these
    (`comfy.controlnet.ControlBase.control_merge`). Then `early` is called too. What `wait` raises comes out of every reading, also the next.
    """

    def __init__(self, residuals: list[Tensor | None], wait: Callable[[], None], early: Callable[[], None]) -> None:
        super().__init__(residuals)
        self._wait = wait
        self._early = early

    def _wait_early(self) -> None:
        self._early()
        self._wait()

    def pop(self, index: SupportsIndex = -1) -> Tensor | None:
        self._wait()
        return super().pop(index)

    def __getitem__(self, index: Any) -> Any:
        self._wait_early()
        return super().__getitem__(index)

    def __iter__(self) -> Iterator[Tensor | None]:
        self._wait_early()
        return super().__iter__()

    def __reversed__(self) -> Iterator[Tensor | None]:
        self._wait_early()
        return super().__reversed__()

    def __contains__(self, value: object) -> bool:
        self._wait_early()
        return super().__contains__(value)

    def __eq__(self, other: object) -> bool:
        self._wait_early()
        return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        self._wait_early()
        return super().__ne__(other)

    def __repr__(self) -> str:
        self._wait_early()
        return super().__repr__()

    def __add__(self, other: Any) -> Any:
        self._wait_early()
        return super().__add__(other)

    def __radd__(self, other: Any) -> Any:
        return other + self.copy()

    def __mul__(self, times: SupportsIndex) -> Any:
        self._wait_early()
        return super().__mul__(times)

    __rmul__ = __mul__

    def copy(self) -> list[Tensor | None]:
        self._wait_early()
        return super().copy()

    def index(self, *args: Any) -> int:
        self._wait_early()
        return super().index(*args)

    def count(self, value: Any) -> int:
        self._wait_early()
        return super().count(value)

    def remove(self, value: Any) -> None:
        self._wait_early()
        super().remove(value)

    def sort(self, *args: Any, **options: Any) -> None:
        self._wait_early()
        super().sort(*args, **options)

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        """Copied and pickled as a plain list."""
        return list, (self.copy(),)

    __hash__ = None
