"""The sum of many controls."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .blocks import Place
from .residuals import Residuals, ResidualShapeError
from .rows import copied, runs_of, shares, spread, views

At = tuple[Place, int]
"""The name of a list of the host, and the index in it."""


class Accumulator:
    """The sum of many controls, one tensor per block. What it was given stays as it is: only sums that it made itself are added to in place.

    Blocks are added together, in one call of the device for all of them where they allow it, with the same result to the last bit as one by one.
    """

    def __init__(self, start: Residuals | None = None) -> None:
        self._sums: dict[Place, list[Tensor | None]] = (start or Residuals()).to_host()  # type: ignore[assignment]
        self._made: set[At] = set()
        """Where nobody else has the sum so far."""

    def add(self, place: Place, index: int, residual: Tensor | None) -> None:
        """Adds one residual to the block at `index` of the host's list `place`. Raises ResidualShapeError."""
        before = self._at((place, index))
        if residual is None:
            return
        if before is None:
            self._put((place, index), residual, made=False)
            return
        if before.shape[1:] != residual.shape[1:]:
            raise ResidualShapeError(
                f"two controls gave {place} {index} residuals of {' × '.join(map(str, before.shape))} and "
                f"{' × '.join(map(str, residual.shape))}, but residuals for one block must have one shape; "
                "use controls that were made for the same model."
            )
        self._put((place, index), before + residual)

    def add_rows(
        self, places: Sequence[At], residuals: Sequence[Tensor], rows: Sequence[int], count: int, made: bool = False
    ) -> None:
        """Adds the rows of each residual, or its one row, at the places `rows` of a batch of `count`; the other rows get nothing.

        `places` are those of the residuals, each once. `made` says that nobody else has them, so that they may become sums. Raises ResidualShapeError.
        """
        whole = len(rows) == count
        fresh: list[tuple[At, Tensor]] = []
        fitting: list[tuple[At, Tensor]] = []
        for at, residual in zip(places, residuals, strict=True):
            before = self._at(at)
            if before is None:
                fresh.append((at, residual))
            elif before.shape != (count, *residual.shape[1:]) or (whole and before.dtype != residual.dtype):
                self.add(*at, spread([residual], rows, count)[0])
            else:
                fitting.append((at, residual.to(before.dtype)))
        if fresh:
            full = spread([residual for _, residual in fresh], rows, count)
            for (at, _), residual in zip(fresh, full, strict=True):
                self._put(at, residual, made or not whole)
        if fitting:
            self._add_fitting([at for at, _ in fitting], [residual for _, residual in fitting], rows, count)

    def _add_fitting(self, places: Sequence[At], residuals: list[Tensor], rows: Sequence[int], count: int) -> None:
        """Adds to sums of `count` rows in the dtype of the residuals."""
        sums: list[Tensor] = [self._sums[place][index] for place, index in places]  # type: ignore[misc]
        if not self._made.issuperset(places):
            if len(rows) == count:
                for at, total in zip(places, torch._foreach_add(sums, residuals), strict=True):
                    self._put(at, total)
                return
            sums = copied(sums, count)
            for at, total in zip(places, sums, strict=True):
                self._put(at, total)
        runs = runs_of(rows)
        torch._foreach_add_(views(sums, runs), shares(residuals, runs))

    def total(self) -> Residuals:
        return Residuals(**{place: tuple(sums) for place, sums in self._sums.items()})

    def _at(self, at: At) -> Tensor | None:
        """The sum so far; the list becomes as long as it must be for it."""
        place, index = at
        sums = self._sums[place]
        sums.extend([None] * (index + 1 - len(sums)))
        return sums[index]

    def _put(self, at: At, total: Tensor, made: bool = True) -> None:
        place, index = at
        self._sums[place][index] = total
        if made:
            self._made.add(at)
