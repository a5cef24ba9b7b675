"""The control: the host's CONTROL_NET, which evaluates all its layers in one place."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import comfy.hooks
import torch
from comfy.controlnet import ControlBase
from torch import Tensor

from ..residuals.residuals import Residuals
from .areas import AreaAware, areas_of, canvas_of
from .compatibility import check_base, unet_layout
from .control_lora import LoraControl
from .errors import ControlError
from .evaluate import evaluate
from .expected import expected_for
from .foreign import ForeignControl
from .frames import frames_of
from .lanes import lane_of, may_be_beside
from .layer import Layer, Source, check_pixels
from .needs import needed
from .network import EncoderNetwork
from .patch_network import PatchNetwork
from .record import Record
from .recording import new_record, record_percents
from .step import Run, Step
from .waiting_list import WaitingList


class Control(AreaAware):
    """An ordered tuple of layers; a foreign control may come before it in the chain as `previous_controlnet`.

    `record` tells what its last run did; with `inspect` also how large residuals and features were.

    As a Load node hands it out it has a network and no layers; `set_cond_hint`, which the stock Apply nodes call, gives it its one layer.
    Put after another Control it takes over that one's layers, so a chain of Apply nodes becomes one control.
    """

    # Attributes of the host's class, which has no types.
    previous_controlnet: Any
    multigpu_clones: dict[torch.device, Any]

    def __init__(
        self,
        network: Source | None = None,
        layers: Sequence[Layer] = (),
        inspect: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.layers = tuple(layers)
        self.inspect = inspect
        self.record: Record | None = None
        self._run: Run | None = None

    @classmethod
    def unbound(cls, network: Source) -> Control:
        """A control that has a network, or a control of the host around one, and waits for its hint: what a Load node hands out."""
        control = cls(network)
        # The stock node for inpainting asks for it.
        control.concat_mask = isinstance(network, ForeignControl) and bool(network.control.concat_mask)
        return control

    @property
    def source(self) -> Source | None:
        """The network, for the type of hint that the stock node Set Union ControlNet Type chose. Raises ControlError for one it lacks."""
        types = self.extra_args.get("control_type")
        if types is None or not isinstance(self.network, EncoderNetwork):
            return self.network
        return self.network.with_type(types[0] if types else None)

    # -- in the graph ------------------------------------------------------------------------------------------------------------------

    def copy(self) -> Control:
        """The same network and layers, without a predecessor and without anything of a run."""
        twin = Control(self.network, self.layers, self.inspect)
        self.copy_to(twin)
        return twin

    def set_cond_hint(
        self,
        cond_hint: Tensor,
        strength: float = 1.0,
        timestep_percent_range: tuple[float, float] = (0.0, 1.0),
        vae: Any = None,
        extra_concat: Sequence[Tensor] = (),
    ) -> Control:
        """Makes one layer of the network and `cond_hint` (N, C, H, W): the stock Apply nodes' way."""
        if self.source is None:
            raise ControlError(
                "This control has its layers already, but one fresh from a Load node was expected; connect the Load node to this Apply node."
            )
        super().set_cond_hint(cond_hint, strength, timestep_percent_range, vae, list(extra_concat))
        source = self.source
        if isinstance(source, ForeignControl):
            source = source.with_hint(cond_hint, strength, timestep_percent_range, vae, extra_concat, self.extra_args)
        elif source is not None:
            source = source.with_vae(vae)
        self.layers = (check_pixels(Layer(source, cond_hint, strength, *timestep_percent_range)),)
        return self

    def set_previous_controlnet(self, controlnet: ControlBase | None) -> Control:
        """Puts `controlnet` before this control; the layers of another Control are taken over instead."""
        if isinstance(controlnet, Control):
            self.layers = controlnet.layers + self.layers
            self.inspect = self.inspect or controlnet.inspect
            self.extra_hooks = comfy.hooks.HookGroup.combine_all_hooks([controlnet.own_hooks, self.own_hooks])
            controlnet = controlnet.previous_controlnet
        self.previous_controlnet = controlnet
        self._run = None
        return self

    # -- around a run ------------------------------------------------------------------------------------------------------------------

    @property
    def acting(self) -> tuple[Layer, ...]:
        """The layers that may add something at some step."""
        return tuple(layer for layer in self.layers if not layer.idle)

    def networks(self) -> Iterator[EncoderNetwork | PatchNetwork]:
        """Each network of the acting layers once."""
        seen: set[Hashable] = set()
        for layer in self.acting:
            if not isinstance(layer.source, ForeignControl) and layer.source.key not in seen:
                seen.add(layer.source.key)
                yield layer.source

    def foreign(self) -> Iterator[Any]:
        """The host's controls that are acting layers of this one."""
        for layer in self.acting:
            if isinstance(layer.source, ForeignControl):
                yield layer.source.control

    def get_models(self) -> list[Any]:
        models: list[Any] = super().get_models()
        for control in self.foreign():
            models += control.get_models()
        models += [network.patcher for network in self.networks() if network.patcher is not None]
        return list(dict.fromkeys(models))

    def inference_memory_requirements(self, dtype: torch.dtype) -> float:
        """Bytes beside the weights: of the chain before, of foreign layers, and of what this control needs over the model (needs.py).

        In a run the latent's size is that of the run (expected.py); asked outside of one, it is that of the largest hint.
        """
        memory: float = super().inference_memory_requirements(dtype)
        memory += sum(control.inference_memory_requirements(dtype) for control in one_of_each(self.foreign()).values())
        if not self.acting:
            return memory
        expected = expected_for(self, [hint for layer in self.acting for hint in layer.hints])
        for layer in self.acting:
            if isinstance(layer.source, PatchNetwork):
                height, width = (cells * layer.source.pixels_per_cell for cells in expected.largest)
                memory += layer.source.memory_requirements(len(layer.hint_bchw), height, width, expected.rows)
        beside = may_be_beside(self.acting, self.inspect)
        previous = self.previous_controlnet is not None or any(self.foreign())
        return memory + needed(self.acting, expected, beside, previous)

    def pre_run(self, model: Any, percent_to_timestep_function: Callable[[float], Any]) -> None:
        """Refuses networks of another base and starts afresh: after an interrupted run the host calls no `cleanup`."""
        super().pre_run(model, percent_to_timestep_function)
        for network in self.networks():
            if isinstance(network, PatchNetwork):
                network.check_model(model)
            else:
                check_base(network, model)
        first_of = one_of_each(self.foreign())
        for control in first_of.values():
            control.pre_run(model, percent_to_timestep_function)
        for control in self.foreign():
            first = first_of[file_of(control)]
            if control is not first:
                control.share(first, model, percent_to_timestep_function)
        ranges = tuple(
            (percent_to_timestep_function(layer.start_percent), percent_to_timestep_function(layer.end_percent))
            for layer in self.layers
        )
        self.record = new_record(self.layers, model, self.inspect)
        self._run = Run(
            model.model_sampling, unet_layout(model), percent_to_timestep_function, ranges, self.record, model
        )

    def cleanup(self) -> None:
        super().cleanup()
        for layer in self.acting:
            if isinstance(layer.source, ForeignControl):
                layer.source.cleanup(layer.hint_bchw)
        if self._run is not None and self._run.record.steps:
            record_percents(self._run.record, self._run.percent_to_sigma)
        self._run = None

    def deepclone_multigpu(self, load_device: torch.device, autoregister: bool = False) -> Control:
        """A copy whose networks live on another device."""
        clones = {network.key: network.clone_to(load_device) for network in self.networks()}

        def moved(layer: Layer) -> Layer:
            if layer.idle:
                return layer
            if isinstance(layer.source, ForeignControl):
                return replace(layer, source=layer.source.clone_to(load_device))
            clone = clones[layer.source.key]
            return replace(layer, source=replace(layer.source, module=clone.module, patcher=clone.patcher))

        twin = self.copy()
        twin.network = None
        twin.layers = tuple(moved(layer) for layer in self.layers)
        if autoregister:
            self.multigpu_clones[load_device] = twin
        return twin

    # -- while sampling ----------------------------------------------------------------------------------------------------------------

    def get_control(
        self, x_noisy: Tensor, t: Tensor, cond: dict[str, Any], batched_number: int, transformer_options: dict[str, Any]
    ) -> dict[str, Any] | None:
        """The host's dict of residual lists for one batch, or None where nothing acts. Fresh lists at each call."""
        previous: dict[str, Any] | None = None
        if self.previous_controlnet is not None:
            previous = self.previous_controlnet.get_control(x_noisy, t, cond, batched_number, transformer_options)
        if self._run is None:
            raise ControlError(
                "A control was asked for residuals outside a sampling run, but the host prepares controls before it samples; "
                "sample with a KSampler or another node that uses the host's sampler."
            )
        run, chunks, size = self._run, batched_number, (int(x_noisy.shape[-2]), int(x_noisy.shape[-1]))
        step = Step(
            x_noisy,
            t,
            cond,
            chunks,
            transformer_options,
            run,
            *self._frames(transformer_options, x_noisy.shape[0] // chunks),
            areas_of(transformer_options, chunks, *size),
            canvas_of(transformer_options) or size,
        )
        if run.record.calls == 0:
            run.lane = lane_of(self.layers, step)
        before = None if previous is None else Residuals.from_host(previous)
        total = evaluate(self.layers, step, before)
        if total is None or total is before:
            return previous
        total, ticket = run.lane.handed(total)
        lists: dict[str, Any] = dict(total.to_host())
        if ticket is not None:
            call = run.record.calls - 1
            lists = {
                place: WaitingList(values, ticket.wait, lambda: run.record.waited_early.add(call))
                for place, values in lists.items()
            }
        return {**(previous or {}), **lists}

    def _frames(self, options: dict[str, Any], per_chunk: int) -> tuple[tuple[int, ...], int]:
        """Which latents of the whole batch a chunk holds; in windows that nobody knows, only if it makes a difference."""
        try:
            return frames_of(options, per_chunk)
        except ControlError:
            if any(layer.by_frame for layer in self.acting):
                raise
            return tuple(range(per_chunk)), per_chunk


def file_of(control: Any) -> int:
    """Equal for foreign controls that can share a network made for a run: the Control-LoRAs of one file."""
    return id(control.control_weights) if isinstance(control, LoraControl) else id(control)


def one_of_each(controls: Iterable[Any]) -> dict[int, Any]:
    """The first control of each file."""
    found: dict[int, Any] = {}
    for control in controls:
        found.setdefault(file_of(control), control)
    return found
