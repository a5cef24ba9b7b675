"""What a run is about to sample: told before the host asks its controls how much memory they need."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .network import HINT_PIXELS_PER_CELL

BRANCHES = 2
"""The host counts the memory of two conditionings in a batch, the conditional and the unconditional one, however many there are."""


@dataclass(frozen=True)
class Chunk:
    """A conditioning with a control: its part of the canvas in latent cells, and whether it is of the conditional branch."""

    height: int
    width: int
    conditional: bool = True


@dataclass(frozen=True)
class Expected:
    """`latents` are those of the batch (of one context window, where the host samples in windows), `chunks` the conditionings that have the control."""

    latents: int
    chunks: tuple[Chunk, ...]

    def calls(self) -> list[tuple[Chunk, ...]]:
        """The largest batch of each size of chunk, conditional ones first: the host batches chunks of one size, and counts on BRANCHES of them."""
        sizes: dict[tuple[int, int], list[Chunk]] = {}
        for chunk in self.chunks:
            sizes.setdefault((chunk.height, chunk.width), []).append(chunk)
        return [tuple(sorted(some, key=lambda chunk: not chunk.conditional)[:BRANCHES]) for some in sizes.values()]

    @property
    def rows(self) -> int:
        """Of the largest batch."""
        return self.latents * max(map(len, self.calls()))

    @property
    def largest(self) -> tuple[int, int]:
        """Height and width of the largest chunk in latent cells."""
        return max(self.sizes, key=math.prod)

    @property
    def sizes(self) -> set[tuple[int, int]]:
        return {(chunk.height, chunk.width) for chunk in self.chunks}


@dataclass(frozen=True)
class Told:
    """The latents and the canvas of a run, and the chunks of each control by its id."""

    latents: int
    canvas: tuple[int, int]
    chunks: Mapping[int, Sequence[Chunk]]


RUN: ContextVar[Told | None] = ContextVar("control_composer_run", default=None)


def expect(
    executor: Callable[..., Any],
    model: Any,
    noise_shape: Sequence[int],
    conds: Mapping[str, Any],
    *args: Any,
    **more: Any,
) -> Any:
    """The host's wrapper around the preparation of a run, in which it asks controls for their memory. It tells the latent's size to nobody else."""
    token = RUN.set(told(noise_shape, conds))
    try:
        return executor(model, noise_shape, conds, *args, **more)
    finally:
        RUN.reset(token)


def told(noise_shape: Sequence[int], conds: Mapping[str, Any]) -> Told | None:
    """None for latents that are no pictures: the host packs some in one row."""
    if len(noise_shape) < 4:
        return None
    canvas = (int(noise_shape[-2]), int(noise_shape[-1]))
    chunks: dict[int, list[Chunk]] = {}
    for branch, some in conds.items():
        for cond in some or ():
            control = cond.get("control")
            while control is not None:
                size = size_of(cond.get("area"), canvas)
                chunks.setdefault(id(control), []).append(Chunk(*size, branch != "negative"))
                if cond.get(
                    "control_apply_to_uncond"
                ):  # the oldest Apply node: the host puts it on the negative ones itself
                    chunks[id(control)].append(Chunk(*size, False))
                control = control.previous_controlnet
    return Told(math.prod(noise_shape[:1]) * math.prod(noise_shape[2:-2]), canvas, chunks)


def size_of(area: Sequence[Any] | None, canvas: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a conditioning's area as the host will cut it; those of the canvas without one, and where the host has not told it yet."""
    if not area:
        return canvas
    if area[0] == "percentage":
        half = (len(area) - 1) // 2
        height, width = (max(1, round(part * size)) for part, size in zip(area[1 : 1 + half][-2:], canvas, strict=True))
    else:
        height, width = area[: len(area) // 2][-2:]
    return min(height, canvas[0]), min(width, canvas[1])


def expected_for(control: object, hints: Sequence[Tensor]) -> Expected:
    """What the run that is being prepared has for a control with the pictures `hints`, each (N, C, H, W).

    Outside of a run: both branches of as many latents as the largest hint has pictures, at its size.
    """
    run = RUN.get()
    if run is None:
        largest = max(hints, key=lambda hint: len(hint) * hint.shape[-2] * hint.shape[-1])
        height, width = (-(-pixels // HINT_PIXELS_PER_CELL) for pixels in largest.shape[-2:])
        return Expected(len(largest), (Chunk(height, width), Chunk(height, width, False)))
    chunks = tuple(run.chunks.get(id(control), ())) or (Chunk(*run.canvas), Chunk(*run.canvas, False))
    return Expected(run.latents, chunks)
