"""Norms: how strong a control was, read from a record after sampling."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from .record import Record


@dataclass(frozen=True)
class Norm:
    """What one layer (None: all together) added to one block in one call: norms of each row; no `feature` where the model does not show it."""

    call: int
    layer: int | None
    block: str
    residual: tuple[float, ...]
    feature: tuple[float, ...] | None


def read_norms(record: Record) -> list[Norm]:
    """The norms of a record as numbers; waits for the device."""
    norms = []
    for (call, layer, block), kept in record.residual_norms.items():
        residual = tuple(kept.tolist())
        beside = record.feature_norms.get((call, block))
        feature = None if beside is None else tuple(beside.tolist())
        if feature is not None and len(residual) != len(feature):
            # A residual of one row serves all; another count comes of a node that cuts the batch between control and model.
            residual, feature = (residual * len(feature), feature) if len(residual) == 1 else (residual, None)
        norms.append(Norm(call, layer, block, residual, feature))
    return norms


def strength_of(norms: Iterable[Norm]) -> tuple[float, float | None]:
    """‖residual‖ of a row and ‖residual‖ / ‖feature‖, both the quadratic mean over the rows of all `norms` that get a residual; (0, 0) where
    none does.

    The second is None where a feature is unknown. Rows that are left alone (the unconditional branch at balance 0) do not thin the number.
    """
    residuals = features = 0.0
    rows, known = 0, True
    for norm in norms:
        reached = [row for row, value in enumerate(norm.residual) if value != 0]
        rows += len(reached)
        residuals += sum(norm.residual[row] ** 2 for row in reached)
        if norm.feature is None:
            known = known and not reached
        else:
            features += sum(norm.feature[row] ** 2 for row in reached)
    if rows == 0:
        return 0.0, 0.0
    return math.sqrt(residuals / rows), math.sqrt(residuals / features) if known and features != 0 else None
