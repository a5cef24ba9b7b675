"""Residuals: one tensor or None per block, in the order of the host's lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from .blocks import Block, Layout, Place, halve, level_between

PLACES: tuple[Place, ...] = ("input", "output", "middle")


class ResidualShapeError(ValueError):
    """A residual does not fit the block that should receive it."""


@dataclass(frozen=True, eq=False)
class Residuals:
    """What a control adds to the UNet. Every operation returns new tensors and leaves these as they are.

    Each tuple is in the order of the host's list of that name. The UNet takes from the end of a list, so "output" holds the first encoder
    block first and "input" the last one first.
    """

    output: tuple[Tensor | None, ...] = ()
    middle: tuple[Tensor | None, ...] = ()
    input: tuple[Tensor | None, ...] = ()

    @classmethod
    def from_host(cls, control: Mapping[str, Sequence[Tensor | None]]) -> Residuals:
        """From the dict of lists that a host's control returns."""
        return cls(
            output=tuple(control.get("output", ())),
            middle=tuple(control.get("middle", ())),
            input=tuple(control.get("input", ())),
        )

    def to_host(self) -> dict[str, list[Tensor | None]]:
        """Fresh lists, because the UNet empties those it gets."""
        return {"input": list(self.input), "middle": list(self.middle), "output": list(self.output)}

    def items(self) -> Iterator[tuple[Place, int, Tensor | None]]:
        """Place, position and tensor of each residual: input, output, middle."""
        for place in PLACES:
            for index, residual in enumerate(getattr(self, place)):
                yield place, index, residual

    @property
    def nbytes(self) -> int:
        return sum(residual.nbytes for _, _, residual in self.items() if residual is not None)

    def map(self, change: Callable[[Tensor, Place, int], Tensor]) -> Residuals:
        """`change` applied to every tensor."""
        changed: dict[Place, tuple[Tensor | None, ...]] = {
            place: tuple(
                None if residual is None else change(residual, place, index)
                for index, residual in enumerate(getattr(self, place))
            )
            for place in PLACES
        }
        return Residuals(**changed)

    def scaled(self, factors: Sequence[float]) -> Residuals:
        """Each residual times its factor; `factors` in the order of `items`."""
        places = {(place, index): factor for (place, index, _), factor in zip(self.items(), factors, strict=True)}
        return self.map(lambda residual, place, index: residual * places[place, index])

    def blocks(self, layout: Layout | None, height: int, width: int) -> tuple[Block, ...]:
        """The block of each residual for a latent of `height` × `width`, in the order of `items`.

        The UNet takes from the end of its lists: encoder block k gets the k-th last of "input", decoder block k, which holds the skip of encoder
        block n-1-k, the k-th last of "output". Without a `layout` (a model that is no UNet) the block is read from the residual itself; one
        without height and width, as transformers have, is on level 0.
        """
        return tuple(
            self._block(place, index, residual, layout, height, width) for place, index, residual in self.items()
        )

    def _block(
        self, place: Place, index: int, residual: Tensor | None, layout: Layout | None, height: int, width: int
    ) -> Block:
        if layout is not None:
            last = len(layout.encoder) - 1
            encoder = {"input": len(self.input) - 1 - index, "output": last - (len(self.output) - 1 - index)}
            if place == "middle":
                level, channels = layout.middle
            elif 0 <= encoder[place] <= last:
                level, channels = layout.encoder[encoder[place]]
            elif (
                place == "input" and residual is None
            ):  # never taken; the host's T2I-Adapter for SDXL has one such entry
                level, channels = layout.middle
            else:
                raise ResidualShapeError(
                    f"the control has {len(getattr(self, place))} {place} residuals, but the model has {last + 1} encoder blocks; "
                    "use a control that was made for this model."
                )
            return Block(place, index, level, channels, halve(height, level), halve(width, level))
        if residual is None or residual.ndim != 4:
            return Block(place, index, 0, 0 if residual is None else residual.shape[-1], height, width)
        rows, columns = residual.shape[-2:]
        return Block(place, index, level_between(height, rows), residual.shape[1], rows, columns)

    def fed(self, layout: Layout | None) -> list[int]:
        """Which of `items` are there, in the order in which the model passes their blocks: input, output, middle, each from first to last.

        A UNet takes "input" from the end of the list. So does what else has residuals with height and width (Stable Cascade); transformers count
        from the beginning.
        """
        there = [(position, item) for position, item in enumerate(self.items()) if item[2] is not None]
        first = [position for position, (place, _, _) in there if place == "input"]
        if layout is not None or any(residual is not None and residual.ndim == 4 for residual in self.input):
            first.reverse()
        return first + [position for position, (place, _, _) in there if place != "input"]

    def check(self, blocks: Sequence[Block], rows: int, source: str) -> None:
        """Raises ResidualShapeError unless every residual is (rows or 1, channels, height, width) of its block.

        The host's UNet would only log the mismatch and go on without the control. `source` names the control in the message.
        """
        for (_, _, residual), block in zip(self.items(), blocks, strict=True):
            expected = (block.channels, block.height, block.width)
            if residual is None or (tuple(residual.shape[1:]) == expected and residual.shape[0] in (1, rows)):
                continue
            raise ResidualShapeError(
                f"{source} gave {block.name} a residual of {' × '.join(map(str, residual.shape))}, but that block of the model takes "
                f"{' × '.join(map(str, (rows, *expected)))} (pictures, channels, height, width); use a control that was made for this model, "
                "or remove the node that changes the sizes inside the model."
            )
