"""What a step sees: rows, times, noise, dropped prompts.

All of it follows from (seed, step, row of the batch) alone, so a run that was stopped and N processes together see what one run sees. Philox
counts (Salmon et al., SC 2011): any of its numbers is reached without those before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

# The third word of the counter: what the numbers are for.
_ORDER, _ROW = 1, 2
# Of the logit: half of the times then lie between 0.31 and 0.69 of the schedule.
_SPREAD = 1.2


def rows(seed: int, step: int, batch: int, groups: Sequence[int] | np.ndarray) -> Tensor:
    """Numbers of the rows that step number `step` learns from, (batch,) int64. `groups`: the group of each row of the data; an array is
    ten times as fast as a list.

    Each row comes once in an epoch. As far as they last, a step's rows are of one group.
    """
    key = np.asarray(groups, dtype=np.int64).tobytes()
    length = len(groups)
    found: list[int] = []
    place = step * batch
    while len(found) < batch:
        epoch, first = divmod(place, length)
        part = _order(seed, epoch, batch, key)[first : first + batch - len(found)]
        found += part.tolist()
        place += len(part)
    return torch.tensor(found)


def draw(
    seed: int,
    step: int,
    positions: Sequence[int],
    shape: tuple[int, ...],
    times: int,
    empty_prompts: float,
    middle_times: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """For these rows of the step's batch (their places in it): times (B,) int64 below `times`, noise (B, *shape) float32, and which
    prompts are dropped, (B,) bool.

    A share `middle_times` of the times is logit-normal, the others are even (Esser et al., arXiv 2403.03206, 3.1, weigh times so).
    """
    moments = torch.empty(len(positions), dtype=torch.int64)
    dropped = torch.empty(len(positions), dtype=torch.bool)
    noise = torch.empty(len(positions), *shape)
    for index, position in enumerate(positions):
        source = _generator(seed, step, _ROW, position)
        moments[index] = int(source.integers(times))
        dropped[index] = bool(source.random() < empty_prompts)
        noise[index] = torch.from_numpy(source.standard_normal(shape, dtype=np.float32))
        if source.random() < middle_times:
            moments[index] = int(times / (1 + math.exp(-_SPREAD * source.standard_normal())))
    return moments, noise, dropped


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, batch: int, key: bytes) -> np.ndarray:
    groups = np.frombuffer(key, dtype=np.int64)
    source = _generator(seed, epoch, _ORDER, 0)
    shuffled = source.permutation(len(groups))
    if (groups == groups[0]).all():
        return shuffled
    chunks: list[np.ndarray] = []
    rest: list[np.ndarray] = []
    for group in np.unique(groups):
        own = shuffled[groups[shuffled] == group]
        whole = len(own) // batch
        chunks += np.split(own[: whole * batch], whole) if whole else []
        rest.append(own[whole * batch :])
    left = np.concatenate(rest)
    # The last step of the epoch before takes the first rows of this one.
    taken = -epoch * len(groups) % batch
    ordered = [chunks[index] for index in source.permutation(len(chunks))]
    return np.concatenate([left[:taken], *ordered, left[taken:]])


def _generator(seed: int, step: int, purpose: int, position: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, step], counter=[0, 0, purpose, position]))
