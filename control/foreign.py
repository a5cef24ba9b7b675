"""Foreign controls: those of the host or of other packs, whose residuals are shaped as they come."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import comfy.controlnet
import torch
from torch import Tensor

from ..residuals.accumulator import Accumulator
from ..residuals.residuals import Residuals
from ..residuals.rows import picked
from .areas import Area
from .errors import ControlError

if TYPE_CHECKING:
    from .layer import Layer
    from .step import Step


class SelfPlacing(comfy.controlnet.ControlBase, ABC):
    """A control that holds all pictures of its layer, chooses those of each frame and places them itself."""

    @abstractmethod
    def place(self, layer: Layer, step: Step, area: Area | None) -> None:
        """Makes ready for one call with chunks that show `area`."""


@dataclass(eq=False)
class PlacedHint:
    """Which hint the control holds now; None for the one it was given."""

    key: Hashable = None


@dataclass(frozen=True, eq=False)
class ForeignControl:
    """A control of another kind, without a predecessor in a chain; a layer's has its hint, strength and range set.

    `base` (SD1, SD2, SDXL) is for messages; `reads` are the numbers of hint channels that it can read. Both are empty where not known.
    """

    control: Any
    name: str
    base: str = ""
    reads: tuple[int, ...] = ()
    placed: PlacedHint = field(default_factory=PlacedHint)
    file: Any = None
    """What the loader of a file keeps only while somebody uses it: the host's own control, of which `control` is a copy."""

    @property
    def key(self) -> int:
        return id(self.control)

    def with_hint(
        self,
        hint_bchw: Tensor,
        strength: float,
        timestep_percent_range: tuple[float, float],
        vae: Any,
        extra_concat: Sequence[Tensor] = (),
        extra_args: Mapping[str, Any] | None = None,
    ) -> ForeignControl:
        """The same control with its own hint, strength and range, and what stock nodes have set: masks of inpainting, types of a union.

        Raises ControlError where it reads latents and there is no VAE to make them.
        """
        if vae is None and getattr(self.control, "latent_format", None) is not None:
            raise ControlError(
                f"{self.name} reads its hint through a VAE, but none is connected; connect the VAE of its model to the Apply node."
            )
        control = self.control.copy()
        more = {"extra_concat": list(extra_concat)} if extra_concat else {}
        control.set_cond_hint(hint_bchw, strength, timestep_percent_range, vae=vae, **more)
        for argument, value in (extra_args or {}).items():
            control.set_extra_arg(argument, value)
        return replace(self, control=control, placed=PlacedHint())

    @property
    def by_frame(self) -> bool:
        """Whether it treats the latents of a batch differently even with one picture."""
        return isinstance(self.control, SelfPlacing)

    @property
    def can_place(self) -> bool:
        """Whether its hint can be exchanged while it samples: the host's classes, which read one picture."""
        return (
            isinstance(self.control, (comfy.controlnet.ControlNet, comfy.controlnet.T2IAdapter))
            and not self.control.concat_mask
        )

    def clone_to(self, device: torch.device) -> ForeignControl:
        """A deep copy on another device; it holds the same hint as this one, placed for the last call or not."""
        return replace(self, control=self.control.deepclone_multigpu(device), placed=PlacedHint(self.placed.key))

    def residuals(self, layer: Layer, rows: Sequence[int], step: Step) -> Residuals | None:
        """What the control gives for some rows, whole chunks; None where it does not act.

        It has one hint at a time, so chunks that show different areas are evaluated one area after the other.
        """
        groups: dict[Area | None, list[int]] = {}
        for row in rows:
            groups.setdefault(step.place(row)[1], []).append(row)
        if len(groups) == 1:
            return self._evaluate(layer, rows, step)
        total = Accumulator()
        for group in groups.values():
            found = self._evaluate(layer, group, step)
            places = [rows.index(row) for row in group]
            items = [] if found is None else list(found.items())
            for place, index, _ in items:
                total.add(place, index, None)  # the UNet counts from the end of the list
            there = {(place, index): residual for place, index, residual in items if residual is not None}
            total.add_rows(list(there), list(there.values()), places, len(rows))
        return total.total()

    def _evaluate(self, layer: Layer, rows: Sequence[int], step: Step) -> Residuals | None:
        """The same for rows that show one area."""
        self._place(layer, rows, step)
        x, sigmas, cond, options = step.x_noisy, step.sigmas, step.cond, step.options
        chunks = step.chunks
        if len(rows) != step.count:
            whole = [row // step.per_chunk for row in rows[:: step.per_chunk]]
            x, sigmas = picked(x, rows, step.count), picked(sigmas, rows, step.count)
            cond = {name: pick(value, rows, step.count) for name, value in cond.items()}
            options = {**options, **{name: [options[name][i] for i in whole] for name in PER_CHUNK if name in options}}
            chunks = len(whole)
        self._forget_other_batch(len(rows))
        control = self.control.get_control(x, sigmas, cond, chunks, options)
        return None if control is None else Residuals.from_host(control)

    def cleanup(self, hint_bchw: Tensor) -> None:
        """Ends a run: the control forgets what it made and holds the hint that it was given again."""
        self.control.cleanup()
        if self.placed.key is not None:
            self.control.cond_hint_original = hint_bchw
            self.placed.key = None

    def _forget_other_batch(self, rows: int) -> None:
        """The host's adapter keeps its residuals for the rows of the first call, which need not be as many as those of this one."""
        kept = getattr(self.control, "control_input", None)
        if isinstance(self.control, comfy.controlnet.T2IAdapter) and kept is not None:
            tensors = [x for residuals in kept.values() for x in residuals if x is not None]
            if any(x.shape[0] not in (1, rows) for x in tensors):
                self.control.cond_hint = None

    def _place(self, layer: Layer, rows: Sequence[int], step: Step) -> None:
        """Gives the control the hint of these rows, placed on the canvas, where the host would treat it in another way."""
        from .placing import place_hint
        from .plan import picture_for  # here, because the plan knows foreign controls

        places = [step.place(row) for row in rows[: step.per_chunk]]
        area = step.place(rows[0])[1]
        if isinstance(self.control, SelfPlacing):
            self.control.place(layer, step, area)
            return
        pictures = tuple(picture_for(layer, frame, step.total) for frame, _ in places)
        as_host = area is None and layer.takes_host_hint and step.total == step.per_chunk
        key: Hashable = None if as_host else (pictures, area, step.canvas, layer.placing)
        if key == self.placed.key:
            return
        if not self.can_place:
            raise ControlError(
                f"{self.name} sizes its hint itself, but a placing other than the host's was expected of it (sizing, batch policy, area or "
                "context window); leave sizing at crop and batch at cycle, and use it without areas and context windows."
            )
        hint: Tensor = layer.hint_bchw
        if key is not None:
            cells = self.control.compression_ratio * (
                self.control.vae.spacial_compression_encode() if self.control.vae else 1
            )
            hint = place_hint(hint[list(pictures)], *step.canvas, layer.placing, area, cells)
        self.control.cond_hint_original = hint
        self.control.cond_hint = None
        if isinstance(self.control, comfy.controlnet.T2IAdapter):
            self.control.control_input = None
        self.placed.key = key


PER_CHUNK = ("cond_or_uncond", "uuids")
"""Entries of the host's transformer options that have one item for each chunk."""


def pick(value: Any, rows: Sequence[int], count: int) -> Any:
    """The `rows` of what has one row for each of `count`; anything else as it is."""
    if isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == count:
        return picked(value, rows, count)
    return value
