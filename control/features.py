"""Features: how large the tensors are to which the UNet adds residuals, and how large the residuals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import comfy.patcher_extension
import torch
from torch import Tensor

from ..residuals.blocks import Block, Layout
from ..residuals.residuals import Residuals
from .record import Record

WRAPPER = comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
KEY = "control_composer_inspect"


def row_norms(values: Tensor) -> Tensor:
    """Euclidean norm of each row: (rows, …) -> (rows,) in float32 on the same device."""
    norms: Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1, dtype=torch.float32)
    return norms


def record_norm(
    record: Record,
    call: int,
    block: Block,
    residual: Tensor,
    layer: int | None = None,
    rows: Sequence[int] | None = None,
    count: int | None = None,
) -> None:
    """Notes the norm of what `layer` (None: all together) adds to one block, each row apart; no wait for the device.

    `rows` are those of a batch of `count` that `residual` belongs to, when it is not the whole batch; noted for the same layer several times, for
    other rows each, they make one.
    """
    key, norms = (call, layer, block.name), row_norms(residual)
    if rows is not None and count is not None and len(rows) < count:
        whole = record.residual_norms.get(key, norms.new_zeros(count))
        norms = whole.index_copy(0, torch.tensor(rows, device=norms.device), norms.expand(len(rows)))
    record.residual_norms[key] = norms


def record_norms(
    record: Record, call: int, residuals: Residuals, blocks: Sequence[Block], layer: int | None = None
) -> None:
    """`record_norm` for every residual that is there; `blocks` as `Residuals.blocks` gives them."""
    for (_, _, residual), block in zip(residuals.items(), blocks, strict=True):
        if residual is not None:
            record_norm(record, call, block, residual, layer)


def record_change(
    record: Record, call: int, block: Block, feature: Tensor, change: Tensor, layer: int, rows: Sequence[int]
) -> None:
    """Notes the norm of what `layer` adds to rows of a feature inside of the UNet, and the feature's.

    A layer may act at several places of one block, and several layers at one place: their norms are put together as those of vectors at right angles.
    """
    norms = row_norms(change)
    whole = norms.new_zeros(feature.shape[0])
    whole = whole.index_copy(0, torch.tensor(rows, device=norms.device), norms.expand(len(rows)))
    for key in ((call, layer, block.name), (call, None, block.name)):
        before = record.residual_norms.get(key)
        record.residual_norms[key] = whole if before is None else torch.hypot(before, whole)
    seen = record.feature_norms.get((call, block.name))
    norms = row_norms(feature)
    record.feature_norms[call, block.name] = norms if seen is None else torch.hypot(seen, norms)


def watch_features(
    options: dict[str, Any], record: Record, call: int, blocks: Sequence[Block], layout: Layout | None
) -> None:
    """Lets the model call that gets these `options` note the norm of the feature behind each of `blocks`, just before the residual is added.

    `options` is the `transformer_options` that the host made for this call; only its entry "wrappers" is replaced. The features do not change.
    Without a `layout` (the model is no UNet) nothing is known of its features, and nothing is watched.
    """
    if layout is None or not blocks:
        return
    watch = _Watch(record, call, _names(blocks, len(layout.encoder)))
    wrappers = options.get("wrappers", {})
    ours = wrappers.get(WRAPPER, {})
    options["wrappers"] = {**wrappers, WRAPPER: {**ours, KEY: [*ours.get(KEY, ()), watch]}}


def _names(blocks: Sequence[Block], encoder: int) -> dict[tuple[str, int], str]:
    """Names of `blocks` by list and number of the encoder block; the UNet takes from the ends of its lists (see `Residuals.blocks`)."""
    length = {place: sum(block.place == place for block in blocks) for place in ("input", "output", "middle")}
    names: dict[tuple[str, int], str] = {}
    for block in blocks:
        if block.place == "middle":
            if block.index == length["middle"] - 1:
                names["middle", 0] = block.name
        elif block.place == "input":
            names["input", length["input"] - 1 - block.index] = block.name
        else:
            names["output", encoder - length["output"] + block.index] = block.name
    return names


@dataclass(frozen=True, eq=False)
class _Watch:
    """Wraps one call of the UNet.

    The skip is seen as it is put away, before anything is added. The host shows the input and middle features only after the addition, which
    is in place, so the residual is taken off again for the norm.
    """

    record: Record
    call: int
    names: dict[tuple[str, int], str] = field(default_factory=dict)

    def __call__(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        # UNetModel._forward(x, timesteps, context, y, control, transformer_options)
        control: dict[str, Sequence[Tensor | None]] = args[4] or {}
        lists = {place: tuple(reversed(control.get(place, ()))) for place in ("input", "middle")}
        options = dict(args[5])

        def before(h: Tensor, place: str, index: int) -> Tensor:
            residual = lists[place][index] if index < len(lists[place]) else None
            if residual is None:
                return h
            try:
                return h.float() - residual.expand(h.shape).to(h.device, torch.float32)
            except RuntimeError:  # of another shape: the host has logged it and added nothing
                return h

        def input_block(h: Tensor, options: dict[str, Any]) -> Tensor:
            index = int(options["block"][1])
            if ("input", index) in self.names:
                self._note("input", index, before(h, "input", index))
            return h

        def skip(h: Tensor, options: dict[str, Any]) -> Tensor:
            self._note("output", int(options["block"][1]), h)
            return h

        def middle(found: dict[str, Any]) -> dict[str, Any]:
            self._note("middle", 0, before(found["h"], "middle", 0))
            return found

        patches = dict(options.get("patches", {}))
        for name, patch in (
            ("input_block_patch", input_block),
            ("input_block_patch_after_skip", skip),
            ("middle_block_after_patch", middle),
        ):
            patches[name] = [patch, *patches.get(name, ())]  # first, before others change the feature
        options["patches"] = patches
        return executor(*args[:5], options, *args[6:], **kwargs)

    def _note(self, place: str, index: int, feature: Tensor) -> None:
        name = self.names.get((place, index))
        if name is not None:
            self.record.feature_norms[self.call, name] = row_norms(feature)
