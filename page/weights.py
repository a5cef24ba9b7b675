"""What the block-weight editor asks: the blocks of the connected control, this node's weights, and the product of all in the row."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np

from ..checkpoints import CheckpointError, open_control
from ..checkpoints.cache import FileStamp, file_stamp
from ..checkpoints.family import Match
from ..nodes.weight import NODES
from ..residuals.block_values import ListedWeights, NamedWeights, names_of
from ..residuals.blocks import Block
from ..residuals.weights import BlockWeights, Flat, Product, ResolutionWeights, SoftWeights
from .blocks import KINDS, PIXELS_PER_CELL, blocks_of, blocks_of_kind, kind_of_count, levels_of

WEIGHTS_NODES = {node.define_schema().node_id: node for node in NODES}
PIXELS = 512
LARGEST = 2**16
DECIMALS = 3
"""Of weights that are written into the node."""
FOLDER = "controlnet"


def weights(question: dict[str, Any]) -> dict[str, Any]:
    """`chain`: [{type, values}] of the weights nodes in a row, the first one first; `own`: which of them asks, by default the last;
    `control`: the name of its file, or null; `others`: further files that the same weights go to; `blocks`: which kind to show where no control is known, or null; `height`, `width` in pixels.

    -> `blocks`: [{name, level, cells, middle, weight, product}], a weight or product that cannot be told being null; `kind`: where the blocks are
    from ("file", one of KINDS, or "count"); `control`: {name, family, base}; `notes`: sentences on what could not be told; `error`: what is wrong
    with this node's values, or null; `fit`: the values brought to the control's count, where that is what is wrong; `presets`: name -> values.
    Raises ValueError for what is no question.
    """
    chain, own = chain_of(question)
    height, width = (-(-pixels_of(question, side) // PIXELS_PER_CELL) for side in ("height", "width"))
    notes: list[str] = []
    control, blocks = control_of(question.get("control"), height, width, notes)
    for other in question.get("others") or ():
        found = control_of(other, height, width, [])[1]
        if blocks is not None and found is not None and len(found) != len(blocks):
            notes.append(f"These weights go to '{other}' too, which has {len(found)} blocks and not {len(blocks)}.")
    made = [told(entry) for entry in chain]
    mine, error = made[own]
    kind = "file"
    if blocks is None:
        kind, blocks = assumed(question.get("blocks"), mine, height, width)
    shown, each, fit = blocks, None, None
    if mine is not None:
        each, problem = weigh(mine, blocks)
        error = error or problem
        if problem and isinstance(mine, ListedWeights):
            fit = {"count": len(blocks), "values": written(fitted(mine.values, blocks))}
            # What the person wrote is shown as it is, until it is brought to the control's count.
            kind, shown = assumed(None, mine, height, width)
            each = mine.values
    total = None
    if fit is None and all(weight is not None for weight, _ in made):
        total, problem = weigh(Product(tuple(weight for weight, _ in made if weight is not None)), shown)
        notes += [problem] if problem and not error else []
    elif error is None:
        notes += [sentence for _, sentence in made if sentence]
    return {
        "blocks": described(shown, each, total, kind == "count"),
        "kind": kind,
        "chained": len(chain) > 1,
        "control": control,
        "notes": notes,
        "error": error,
        "fit": fit,
        "presets": {name: written(preset(shown, each)) for name, preset in PRESETS.items()}
        | {"reset": default_values()},
    }


def chain_of(question: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], int]:
    """Raises ValueError."""
    chain = question.get("chain")
    if not isinstance(chain, list) or not chain or not all(isinstance(entry, dict) for entry in chain):
        raise ValueError(
            'chain of the question about weights has no nodes in it, but a list such as [{"type": "ControlComposerBlockWeights", "values": {}}] '
            "was expected; send one."
        )
    own = question.get("own", len(chain) - 1)
    if not isinstance(own, int) or not 0 <= own < len(chain):
        raise ValueError(
            f"own of the question about weights is {own!r}, but a position in the chain of {len(chain)} was expected; send one."
        )
    return chain, own


def pixels_of(question: Mapping[str, Any], side: str) -> int:
    """Raises ValueError."""
    found = question.get(side) or PIXELS
    if not isinstance(found, int) or not 0 < found <= LARGEST:
        raise ValueError(
            f"{side} of the question about weights is {found!r}, but a number of pixels was expected; send one, such as {PIXELS}."
        )
    return found


def told(entry: Mapping[str, Any]) -> tuple[BlockWeights | None, str | None]:
    """What a weights node makes of its values, by running it; or None and the sentence that says why not."""
    name, values = entry.get("type"), entry.get("values")
    node = WEIGHTS_NODES.get(name) if isinstance(name, str) else None
    if node is None:
        return None, f"{name} is no weights node of this pack, so the product is known only when it has run."
    inputs = {given.id: given for given in node.define_schema().inputs if given.id != "weights"}
    given = values if isinstance(values, dict) else {}
    unknown = [key for key in inputs if key in given and given[key] is None]
    if unknown:
        return (
            None,
            f"{unknown[0]} of {node.define_schema().display_name} comes from another node, so it is known only when that has run.",
        )
    try:
        result = node.execute(**{key: given.get(key, getattr(inputs[key], "default", None)) for key in inputs})
    except (ArithmeticError, KeyError, TypeError, ValueError) as problem:
        return None, str(problem)
    found = result.args[0]
    return (found, None) if isinstance(found, BlockWeights) else (None, f"{name} gives no block weights.")


def control_of(
    name: Any, height: int, width: int, notes: list[str]
) -> tuple[dict[str, str] | None, tuple[Block, ...] | None]:
    """What the connected file is, and its blocks; None for what cannot be told, with a sentence in `notes`."""
    if not isinstance(name, str):
        return None, None
    path = folder_paths.get_full_path(FOLDER, name)
    if path is None:
        notes.append(
            f"'{name}' is in none of the {FOLDER} folders, so its blocks are not known; choose a file that is there."
        )
        return None, None
    try:
        match = match_of(file_stamp(Path(path)))
    except (CheckpointError, OSError) as problem:
        notes.append(str(problem))
        return None, None
    blocks = blocks_of(match, height, width)
    if blocks is None:
        notes.append(
            f"'{name}' is {match.family.name}, whose blocks are known only when it is loaded; write one number per block."
        )
    return {"name": name, "family": match.family.noun, "base": match.base}, blocks


@lru_cache(maxsize=64)
def match_of(stamp: FileStamp) -> Match:
    """Read once for each state of a file. Raises CheckpointError."""
    return open_control(Path(stamp.path)).match


def assumed(kind: Any, mine: BlockWeights | None, height: int, width: int) -> tuple[str, tuple[Block, ...]]:
    """The blocks to show where no control tells them: as many as the values are, or those of `kind`. Raises ValueError."""
    if kind is not None and not isinstance(kind, str):
        raise ValueError(
            f"blocks of the question about weights is {kind!r}, but one of {', '.join(KINDS)} was expected."
        )
    if kind is None and isinstance(mine, ListedWeights):
        kind = kind_of_count(len(mine.values))
        if kind is None:
            return "count", tuple(Block("input", number, 0, 0, height, width) for number in range(len(mine.values)))
    if kind is None and isinstance(mine, NamedWeights) and any(name.startswith("input") for name, _ in mine.values):
        kind = "t2i"
    kind = kind or "sd1"
    return kind, blocks_of_kind(kind, height, width)


def weigh(found: BlockWeights, blocks: Sequence[Block]) -> tuple[tuple[float, ...] | None, str | None]:
    try:
        return found(blocks), None
    except ValueError as problem:
        return None, str(problem)


def described(
    blocks: Sequence[Block], each: Sequence[float] | None, total: Sequence[float] | None, bare: bool
) -> list[dict[str, Any]]:
    """`bare` blocks are counted and nothing else is known of them."""
    names = [str(number) for number in range(len(blocks))] if bare else names_of(blocks)
    return [
        {
            "name": names[at],
            "level": None if bare else block.level,
            "cells": "" if bare else cells(block),
            "middle": block.place == "middle",
            "weight": number(each, at),
            "product": number(total, at),
        }
        for at, block in enumerate(blocks)
    ]


def number(values: Sequence[float] | None, at: int) -> float | None:
    """JSON has no infinity, to which products of large numbers may come."""
    return values[at] if values is not None and math.isfinite(values[at]) else None


def cells(block: Block) -> str:
    """64, or 64×96 for what is no square."""
    return str(block.height) if block.height == block.width else f"{block.height}×{block.width}"


def fitted(values: Sequence[float], blocks: Sequence[Block]) -> list[float]:
    """The course of the values over as many blocks; the last value stays with a middle block that stands last."""
    if not values or not blocks:
        return [1.0] * len(blocks)
    if len(values) == 1 or len(blocks) == 1:
        return [values[-1]] * len(blocks)
    had_middle = kind_of_count(len(values)) not in (None, "t2i")
    if not (had_middle and blocks[-1].place == "middle" and len(blocks) > 2):
        return stretched(values, len(blocks))
    return [*stretched(values[:-1], len(blocks) - 1), values[-1]]


def stretched(values: Sequence[float], count: int) -> list[float]:
    places = np.linspace(0, len(values) - 1, count)
    return [float(value) for value in np.interp(places, range(len(values)), values)]


def split_by_level(coarse: bool) -> Callable[[Sequence[Block], Sequence[float] | None], list[float]]:
    """1 for the coarser half of the levels and the middle, 0 for the others; or the reverse."""

    def weights_of(blocks: Sequence[Block], _: Sequence[float] | None) -> list[float]:
        levels = levels_of(blocks)
        lower = levels[: -(-len(levels) // 2)] if len(levels) > 1 else levels
        return [float((block.place == "middle" or block.level not in lower) == coarse) for block in blocks]

    return weights_of


def inverted(_: Sequence[Block], each: Sequence[float] | None) -> list[float]:
    """Strong where it was weak, in the same span; twice is as before."""
    return [max(each) + min(each) - value for value in each] if each else []


PRESETS: dict[str, Callable[[Sequence[Block], Sequence[float] | None], Sequence[float]]] = {
    "flat": lambda blocks, _: Flat()(blocks),
    "resolution": lambda blocks, _: ResolutionWeights()(blocks),
    "soft": lambda blocks, _: SoftWeights()(blocks),
    "coarse": split_by_level(coarse=True),
    "fine": split_by_level(coarse=False),
    "inverted": inverted,
}


def written(values: Sequence[float]) -> str:
    """As it stands in the node and in the saved file; empty where there is nothing to write."""
    if not values or not all(map(math.isfinite, values)):
        return ""
    rounded = [round(value, DECIMALS) for value in values]
    return json.dumps([int(value) if value == math.floor(value) else value for value in rounded])


def default_values() -> str:
    inputs = WEIGHTS_NODES["ControlComposerBlockWeights"].define_schema().inputs
    return str(next(given.default for given in inputs if given.id == "values"))
