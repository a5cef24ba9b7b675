"""Block weights written down by a person: one number per block, as text or JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .blocks import Block
from .residuals import PLACES
from .weights import BlockWeights, BlockWeightsError, Flat

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
NAME = re.compile(rf"({'|'.join(PLACES)})(?:[ _](\d{{1,4}}))?", re.ASCII)
ADVICE = 'write numbers with commas between them, such as "1, 0.5, 0", or JSON, such as {"output": 0.5, "middle": 1}'


@dataclass(frozen=True)
class ListedWeights(BlockWeights):
    """One number per block in the control's own order: the finest encoder block first, the middle last. Never cut off, never filled up."""

    values: tuple[float, ...]

    def __str__(self) -> str:
        return ", ".join(f"{value:g}" for value in self.values)

    def __call__(self, blocks: Sequence[Block]) -> tuple[float, ...]:
        check_count("", len(self.values), blocks, blocks)
        return self.values


@dataclass(frozen=True)
class NamedWeights(BlockWeights):
    """Numbers for named blocks; the others keep 1.

    A name is a place ("output": one number for all blocks there, or one for each) or a single block ("output 3"), counted among the blocks
    of that place that the control feeds; the single block wins.
    """

    values: tuple[tuple[str, float | tuple[float, ...]], ...]

    def __str__(self) -> str:
        def words(value: float | tuple[float, ...]) -> str:
            return " ".join(f"{each:g}" for each in value) if isinstance(value, tuple) else f"{value:g}"

        return ", ".join(f"{name}: {words(value)}" for name, value in self.values)

    def __call__(self, blocks: Sequence[Block]) -> tuple[float, ...]:
        factors = dict.fromkeys(names_of(blocks), 1.0)
        for name, value in sorted(self.values, key=lambda item: item[0] not in PLACES):
            place = [block for block in blocks if block.place == name]
            if not place and name not in factors:
                raise BlockWeightsError(
                    f'Block Weights names "{name}", but this control has {described(blocks)}; use the names of these.'
                )
            if isinstance(value, tuple):
                check_count(f' for "{name}"', len(value), place, blocks)
                factors.update(zip((n for n in factors if n.split()[0] == name), value, strict=True))
            else:
                factors.update({n: value for n in factors if name in (n, n.split()[0])})
        return tuple(factors.values())


def names_of(blocks: Sequence[Block]) -> list[str]:
    """ "output 0" … "output 11", "middle": each block by its place and its number among the control's blocks there."""
    names = []
    for number, block in enumerate(blocks):
        index = sum(before.place == block.place for before in blocks[:number])
        names.append("middle" if block.place == "middle" and index == 0 else f"{block.place} {index}")
    return names


def described(blocks: Sequence[Block]) -> str:
    """The control's blocks in words: 13 blocks (output 0 to output 11, middle)."""
    names = names_of(blocks)
    groups = [[name for name, block in zip(names, blocks, strict=True) if block.place == place] for place in PLACES]
    spans = [group[0] if len(group) == 1 else f"{group[0]} to {group[-1]}" for group in groups if group]
    return f"{len(blocks)} block{'' if len(blocks) == 1 else 's'} ({', '.join(spans)})"


def check_count(of: str, count: int, expected: Sequence[Block], blocks: Sequence[Block]) -> None:
    if count == len(expected):
        return
    raise BlockWeightsError(
        f"Block Weights has {count} number{'' if count == 1 else 's'}{of}, but this control has {described(blocks)}; "
        f"write {len(expected)} number{'' if len(expected) == 1 else 's'}, or a single one for all of them."
    )


def parse_block_values(text: str) -> BlockWeights:
    """Block weights from text: one number for all blocks, a list of one per block, or JSON (a list, or an object with names).

    Numbers are separated by commas, semicolons, blanks or line ends. Raises ValueError, naming what could not be read.
    """
    text = text.strip()
    if not text:
        raise ValueError(f"values of Block Weights is empty, but numbers were expected; {ADVICE}.")
    if text[0] in "[{":
        return from_json(text)
    words = re.split(r"\s*[,;]\s*|\s+", text)
    if len(words) > 1 and not words[-1]:  # one separator at the end does no harm
        words.pop()
    values = []
    for position, word in enumerate(words, 1):
        if not NUMBER.fullmatch(word) or not math.isfinite(float(word)):
            shown = f'"{word[:40]}"' if word else "nothing"
            raise ValueError(
                f"values of Block Weights has {shown} in place {position}, but a number was expected; {ADVICE}."
            )
        values.append(float(word))
    return Flat(values[0]) if len(words) == 1 else ListedWeights(tuple(values))


def from_json(text: str) -> BlockWeights:
    try:
        found = json.loads(text, object_pairs_hook=tuple)
    except (ValueError, RecursionError) as problem:
        where = f": {problem}" if isinstance(problem, json.JSONDecodeError) else ""
        raise ValueError(
            f"values of Block Weights begins as JSON but cannot be read to its end{where}, but a whole list or object was expected; {ADVICE}."
        ) from None
    if isinstance(found, list):
        return ListedWeights(tuple(number(value, f"in place {at}") for at, value in enumerate(found, 1)))
    values: dict[str, float | tuple[float, ...]] = {}
    for name, value in found:
        parts = NAME.fullmatch(name)
        if parts is None:
            raise ValueError(
                f'values of Block Weights names "{name[:40]}", but names are input, output and middle, alone or with a number such as '
                '"output 3"; correct the name.'
            )
        place, index = parts.groups()
        name = place if index is None or (place, int(index)) == ("middle", 0) else f"{place} {int(index)}"
        if name in values:
            raise ValueError(
                f'values of Block Weights names "{name}" twice, but one weight per name was expected; remove one of them.'
            )
        if index is None and isinstance(value, list):
            values[name] = tuple(number(each, f'in place {at} of "{name}"') for at, each in enumerate(value, 1))
        else:
            values[name] = number(value, f'for "{name}"')
    return NamedWeights(tuple(values.items()))


def number(value: Any, where: str) -> float:
    """A JSON value as a finite float."""
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:  # a whole number that no float can hold
        pass
    shown = "an object" if isinstance(value, tuple) else json.dumps(value)[:40]
    raise ValueError(f"values of Block Weights has {shown} {where}, but a number was expected; {ADVICE}.")
