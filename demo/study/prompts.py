"""The paper's four prompt settings (arXiv 2302.05543, 4.2) for scenes of the demo world."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from ..scenes import SHAPES, Scenes, sample_scenes

Setting = Literal["none", "insufficient", "conflicting", "perfect"]
SETTINGS: tuple[Setting, ...] = get_args(Setting)
SEED = 5
"""Of the scenes whose captions conflict."""
_POOL = 4096
_STRIDE = 61


def prompts(scenes: Scenes, setting: Setting) -> list[str]:
    """A prompt for each scene.

    "none" is empty; "insufficient" names the shapes, without sizes, colours and ground; "perfect" is the scene's own caption. "conflicting" is
    the caption of another scene with as many shapes, none of which this scene has, on another ground: nothing that it names is true here.
    """
    if setting == "none":
        return [""] * len(scenes)
    if setting == "perfect":
        return scenes.captions()
    if setting == "insufficient":
        return [_shapes_alone(scenes, row) for row in range(len(scenes))]
    return _conflicting(scenes)


def _shapes_alone(scenes: Scenes, row: int) -> str:
    things = [f"a {SHAPES[int(shape)]}" for shape in scenes.shape[row, : int(scenes.count[row])]]
    return things[0] if len(things) == 1 else ", ".join(things[:-1]) + " and " + things[-1]


def _conflicting(scenes: Scenes) -> list[str]:
    pool = sample_scenes(_POOL, SEED)
    has, pool_has = _which_shapes(scenes), _which_shapes(pool)
    chosen = []
    for row in range(len(scenes)):
        fits = (
            (pool.count == scenes.count[row])
            & ~(pool_has & has[row]).any(dim=1)
            & (pool.ground_colour != scenes.ground_colour[row])
        )
        # Each scene begins to look at another place, so that captions differ.
        start = row * _STRIDE % _POOL
        fitting = fits.roll(-start).nonzero()[0, 0]
        chosen.append(int(fitting + start) % _POOL)
    return [pool[slice(row, row + 1)].captions()[0] for row in chosen]


def _which_shapes(scenes: Scenes) -> Tensor:
    """(N, shapes) bool."""
    there = (scenes.shape.new_tensor(range(scenes.shape.shape[1])) < scenes.count[:, None]).long()
    return scenes.count.new_zeros(len(scenes), len(SHAPES)).scatter_add_(1, scenes.shape, there) > 0
