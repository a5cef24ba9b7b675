"""Solo: of many layers only the named ones act."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from .errors import ControlError
from .layer import Layer


def solo_numbers(text: str, numbers: Collection[int], node: str = "Compose Controls") -> frozenset[int]:
    """Numbers with commas between them; none of them means that nothing is soloed. Raises ControlError for any that is not one of `numbers`."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    wrong = [part for part in parts if not part.isdecimal() or int(part) not in numbers]
    if wrong:
        listed = ", ".join(map(str, sorted(numbers))) or "none"
        raise ControlError(
            f'solo of {node} names "{wrong[0]}", but numbers of its connected layers ({listed}) with commas between them were expected; '
            "write such numbers, or nothing to let all layers act."
        )
    return frozenset(map(int, parts))


def soloed(layers: Mapping[int, Layer], chosen: Collection[int]) -> dict[int, Layer]:
    """The layers by their numbers; where some are `chosen`, the others keep silent. One that is off stays off."""
    return {
        number: layer if not chosen or number in chosen else replace(layer, silent=True)
        for number, layer in layers.items()
    }
