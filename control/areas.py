"""Areas: which part of the canvas each chunk of a call shows, and how a control learns it from the host's sampler."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.hooks
import comfy.samplers
from comfy.controlnet import ControlBase
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from .errors import ControlError
from .expected import expect

Area = tuple[int, int, int, int]
"""height, width, y, x in latent cells, as the host writes areas."""

KEY = "control_composer_call"


@dataclass(frozen=True, eq=False)
class Call:
    """What the host's sampler knows of one call and does not tell controls.

    `size` is that of the latent without batch and channels (of the frames of one window, where the host samples in windows), `areas` the areas of
    each conditioning by its uuid, None for all of the canvas, `retained` the positions at which every window has the batch's own frame.
    """

    size: tuple[int, ...]
    areas: Mapping[Hashable, Sequence[Sequence[int] | None]]
    retained: tuple[int, ...] = ()


def watch(
    executor: Callable[..., Any],
    model: Any,
    conds: Sequence[Sequence[dict[str, Any]] | None],
    x_in: Tensor,
    timestep: Tensor,
    model_options: dict[str, Any],
) -> Any:
    """The host's wrapper around a call: puts a `Call` into the options that controls get. Changes nothing that it was given."""
    areas: dict[Hashable, list[Sequence[int] | None]] = {}
    for cond in (cond for branch in conds if branch is not None for cond in branch):
        areas.setdefault(cond.get("uuid"), []).append(cond.get("area"))
    retained = getattr(model_options.get("context_handler"), "latent_retain_index_list", ())
    call = Call(tuple(x_in.shape[2:]), areas, tuple(retained))
    options = {**model_options.get("transformer_options", {}), KEY: call}
    return executor(model, conds, x_in, timestep, {**model_options, "transformer_options": options})


def tidy(executor: Any, *args: Any, **more: Any) -> Any:
    """The host's wrapper around a run: cleans controls up where it ends with an exception or an interruption, after which the host does not."""
    try:
        return executor(*args, **more)
    except BaseException:
        conds = [cond for branch in executor.class_obj.conds.values() for cond in branch or ()]
        for control in {id(cond.get("control")): cond.get("control") for cond in conds}.values():
            if isinstance(control, ControlBase):
                control.cleanup()
        raise


WATCH = comfy.hooks.TransformerOptionsHook(
    {
        "wrappers": {
            WrappersMP.CALC_COND_BATCH: {KEY: [watch]},
            WrappersMP.OUTER_SAMPLE: {KEY: [tidy]},
            WrappersMP.PREPARE_SAMPLING: {KEY: [expect]},
        }
    }
)
"""Only one, because the host adds what several conditionings bring once for each hook that is not the same."""


def watched(hooks: Any) -> Any:
    """A HookGroup of `hooks` (or of none) and WATCH."""
    group = comfy.hooks.HookGroup()
    for hook in () if hooks is None else hooks.hooks:
        group.add(hook)  # itself, no clone: the host notes in a hook that it is registered
    group.add(WATCH)
    return group


def unwatched(hooks: Any) -> Any:
    """`hooks` without WATCH, None where nothing is left."""
    if hooks is None or not hooks.contains(WATCH):
        return hooks
    group = comfy.hooks.HookGroup()
    for hook in hooks.hooks:
        if hook != WATCH:
            group.add(hook)
    return group if len(group) > 0 else None


class AreaAware(ControlBase):
    """A control that the sampler tells about areas, wherever the nodes that set them stand in the graph.

    The host collects wrappers from `extra_hooks` of the controls, which is all that WATCH needs. It asks `get_extra_hooks` for those that act on
    weights, and then loads the model anew without its dynamic memory and batches by hooks: WATCH, which touches no weight, is left out there.
    """

    own_hooks: Any = None
    """The HookGroup that others gave this control, or None."""

    @property
    def extra_hooks(self) -> Any:
        return watched(self.own_hooks)

    @extra_hooks.setter
    def extra_hooks(self, hooks: Any) -> None:
        self.own_hooks = unwatched(hooks)

    def get_extra_hooks(self) -> list[Any]:
        before = [] if self.previous_controlnet is None else self.previous_controlnet.get_extra_hooks()
        return [*([] if self.own_hooks is None else [self.own_hooks]), *before]


def canvas_of(options: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width of the canvas in latent cells; None where nobody told them: outside of the host's sampler, or for a latent without them."""
    call: Call | None = options.get(KEY)
    return None if call is None or len(call.size) < 2 else (call.size[-2], call.size[-1])


def areas_of(options: Mapping[str, Any], chunks: int, height: int, width: int) -> tuple[Area | None, ...]:
    """The area that each chunk of a call shows, None for all of the canvas; the chunks are `height` × `width` cells.

    Raises ControlError where the chunks are no areas that the sampler knows: another node cuts the latent without telling where.
    """
    canvas = canvas_of(options)
    if canvas is None:
        return (None,) * chunks
    call: Call = options[KEY]
    uuids = list(options.get("uuids", ()))
    if len(uuids) != chunks:
        uuids = [None] * chunks

    def area_of(uuid: Hashable) -> Area | None:
        known = {resolve(area, call.size) for area in call.areas.get(uuid, ())}
        fitting = [area for area in known if area[:2] == (height, width)]
        if len(fitting) != 1:
            raise ControlError(
                f"The latent of this call is {width}×{height} cells, but {'several areas' if fitting else 'no area'} of its conditioning on the "
                f"canvas of {canvas[1]}×{canvas[0]} could be meant and one was expected, so the hint cannot be cut to it; "
                "remove the node that cuts the latent into tiles, or sample without this control."
            )
        return None if fitting[0] == (*canvas, 0, 0) else fitting[0]

    return tuple(area_of(uuid) for uuid in uuids)


def resolve(area: Sequence[int] | None, size: Sequence[int]) -> Area:
    """Height, width, y and x of an area as the host's `get_area_and_mult` cuts it; an area in time acts on all frames alike."""
    dims = len(size)
    if area is None:
        return size[-2], size[-1], 0, 0
    filled = comfy.samplers.add_area_dims(list(area), dims)
    half = len(filled) // 2
    starts = filled[half : half + dims]
    lengths = [min(whole - start, length) for whole, start, length in zip(size, starts, filled[:dims], strict=True)]
    return lengths[-2], lengths[-1], starts[-2], starts[-1]
