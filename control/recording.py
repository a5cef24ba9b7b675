"""Writing a control's record while it samples: numbers that are known anyway, and no wait for the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..residuals.blocks import Block
from ..residuals.moments import percents_of
from ..residuals.weights import Flat
from .foreign import ForeignControl
from .hint_note import hint_note
from .layer import Layer
from .network import type_name
from .patch_network import PatchNetwork
from .plan import Act, picture_for
from .record import LayerInfo, LayerStep, Record, Stopwatch
from .step import Step


def new_record(layers: Sequence[Layer], model: Any, inspect: bool) -> Record:
    """An empty record of a run of these layers on a host's model."""
    return Record(
        layers=tuple(info(number, layer) for number, layer in enumerate(layers, 1)),
        model=type(model.model_config).__name__,
        inspect=inspect,
    )


def info(number: int, layer: Layer) -> LayerInfo:
    source = layer.source
    patcher = None if isinstance(source, ForeignControl) else source.patcher
    height, width = layer.hint_bchw.shape[-2:]
    return LayerInfo(
        number=number,
        name=source.name,
        base=source.base,
        strength=layer.strength * layer.master,
        start_percent=layer.start_percent,
        end_percent=layer.end_percent,
        enabled=layer.enabled,
        types=", ".join([str(hint) for hint in layer.union] or map(type_name, layer.told)),
        weights="" if layer.weights == Flat() else str(layer.weights),
        schedule="" if layer.schedule is None else str(layer.schedule),
        mask="" if layer.mask is None else mask_in_words(layer),
        balance="" if layer.uncond_strength == 1 else f"unconditional branch × {layer.uncond_strength:g}",
        batch="" if layer.batch == "cycle" else layer.batch,
        sizing="" if layer.placing.sizing == "crop" else f"{layer.placing.sizing}, {layer.placing.fill}",
        reuse=str(layer.reuse),
        pictures=most_pictures(layer),
        hint_height=height,
        hint_width=width,
        weights_bytes=0 if patcher is None else int(patcher.model_size()),
        inside=isinstance(source, PatchNetwork),
        note=note_on(layer),
    )


def note_on(layer: Layer) -> str:
    """A remark on its hints; none on pictures that are read as they are, without a network."""
    if layer.idle or (isinstance(layer.source, PatchNetwork) and layer.source.module is None):
        return ""
    return next(filter(None, map(hint_note, layer.hints)), "")


def most_pictures(layer: Layer) -> int:
    """Of the hint that has most."""
    return max(len(hint) for hint in layer.hints)


def mask_in_words(layer: Layer) -> str:
    assert layer.mask is not None
    count, height, width = layer.mask.shape
    words = f"{count} mask{'' if count == 1 else 's'} of {width}×{height}"
    return f"{words}, normalised where masks overlap" if layer.overlapping else words


def record_idle(act: Act, call: int, step: Step) -> None:
    step.run.record.steps.append(layer_step(act, call, step, ran=False))


def record_run(
    act: Act,
    call: int,
    step: Step,
    rows: Sequence[int],
    blocks: Sequence[tuple[Block, float]],
    residual_bytes: int,
    stopwatch: Stopwatch | None,
    shares: Act | None,
    held_from: float | None = None,
    lane: str = "",
    beside: bool = False,
) -> None:
    """A layer that was evaluated, with the weight of each block; `shares` is the layer that began the same pass.

    Without a stopwatch its time is part of the model's, because it acts inside of it; or, with the sigma `held_from`, its residuals of that
    moment were added again.
    """
    layer, number, record = act.layer, act.number + 1, step.run.record
    found: dict[str, Any] = {"gain": act.gain * layer.strength}
    if not isinstance(layer.source, ForeignControl):
        pixels = layer.source.pixels_per_cell
        size = (step.size[0] * pixels, step.size[1] * pixels)
        pictures = tuple(picture_for(layer, frame, step.total, most_pictures(layer)) for frame in step.frames)
        found = {"gain": act.gain, "hint_size": size, "pictures": pictures}
        if number not in record.embedding_bytes:
            record.embedding_bytes[number] = step.run.embeddings.new_bytes()
    record.steps.append(
        layer_step(
            act,
            call,
            step,
            ran=True,
            blocks=tuple((block.name, found["gain"] * weight) for block, weight in blocks),
            rows_run=len(rows) if held_from is None else 0,
            stopwatch=stopwatch if shares is None else None,
            shares=None if shares is None else shares.number + 1,
            held_from=held_from,
            lane=lane,
            beside=beside,
            residual_bytes=residual_bytes,
            **found,
        )
    )


def layer_step(act: Act, call: int, step: Step, **found: Any) -> LayerStep:
    strengths = act.layer.picture_strengths(step.total) if not act.idle else ()
    windowed = step.total != step.per_chunk
    record = step.run.record
    record.sampler_sigmas = step.sample_sigmas or ()
    if call not in record.unread:
        record.unread[call] = step.sigmas[:1]
    return LayerStep(
        call=call,
        layer=act.number + 1,
        sigma=math.nan,
        percent=math.nan,
        step=math.nan,
        reason=act.idle,
        uncond_factor=act.layer.uncond_strength,
        picture_factors=tuple(strengths[frame] for frame in step.frames) if any(s != 1 for s in strengths) else (),
        rows=step.count,
        area=next((area for area in step.areas if area is not None), None),
        frames=step.frames if windowed else None,
        latent_size=step.size,
        **found,
    )


def record_percents(record: Record, percent_to_sigma: Callable[[float], Any]) -> None:
    """Fills in the percents of a run, at its end: the host tells sigmas by percents, and asking it at each step would take time."""
    record.read_sigmas()
    percents = percents_of([entry.sigma for entry in record.steps], percent_to_sigma)
    record.steps[:] = [
        replace(entry, percent=percent, step=percent if math.isnan(entry.step) else entry.step)
        for entry, percent in zip(record.steps, percents, strict=True)
    ]
