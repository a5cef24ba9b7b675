"""One process, or several that accelerate started, behind the same few calls."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from .errors import TrainingError
from .parts import in_parts, state_in_parts, whole


class Processes:
    """`accelerator`: an `accelerate.Accelerator`, or None for one process without it."""

    def __init__(self, accelerator: Any | None, control: nn.Module) -> None:
        self._accelerator = accelerator
        kind = "" if accelerator is None else accelerator.distributed_type.value
        self.sharded = kind == "FSDP"
        """Whether weights and the optimiser's state lie in parts on the processes."""
        if kind in ("DEEPSPEED", "MEGATRON_LM") or (
            accelerator is not None and self.sharded and not accelerator.is_fsdp2
        ):
            raise TrainingError(
                "The configuration of accelerate",
                found=f"asks for {'version 1 of FSDP' if self.sharded else kind}",
                expected="version 2 of FSDP was expected, which does what ZeRO 2 and 3 do, or plain processes",
                remedy="choose it in 'accelerate config' (fsdp_version: 2)",
            )
        self.count: int = 1 if accelerator is None else accelerator.num_processes
        self.index: int = 0 if accelerator is None else accelerator.process_index
        device: torch.device = next(control.parameters()).device if accelerator is None else accelerator.device
        # accelerate numbers CPUs (cpu:0), onto which torch.load puts nothing.
        self.device = torch.device("cpu") if device.type == "cpu" else device

    @property
    def first(self) -> bool:
        return self.index == 0

    def prepare(self, control: nn.Module, optimiser: Any) -> tuple[nn.Module, Any]:
        """The module to call, which adds up gradients over the processes, and the optimiser to step."""
        if self._accelerator is None:
            return control, optimiser
        together: tuple[nn.Module, Any] = self._accelerator.prepare(control, optimiser)
        return together

    def gathering(self, control: nn.Module, last: bool) -> AbstractContextManager[Any]:
        """Around each backward pass of a step; the processes exchange gradients in the last one only."""
        if self._accelerator is None or last:
            return nullcontext()
        alone: AbstractContextManager[Any] = self._accelerator.no_sync(control)
        return alone

    def backward(self, loss: Tensor) -> None:
        if self._accelerator is None:
            loss.backward()
        else:
            self._accelerator.backward(loss)

    def sum(self, values: Tensor) -> Tensor:
        """Added up over the processes, on each of them."""
        if self._accelerator is None:
            return values
        total: Tensor = self._accelerator.reduce(values, reduction="sum")
        return total

    def any(self, value: bool) -> bool:
        """Whether it is so in any process."""
        if self._accelerator is None or self.count == 1:
            return value
        return bool(self.sum(torch.tensor(float(value), device=self.device)) > 0)

    def whole(self, values: Any) -> Any:
        """Dictionaries and lists with whole tensors, in the first process. Every process has to call it at once."""
        return whole(values, self.first) if self.sharded else values

    def number(self, value: Any) -> Tensor:
        """A tensor of no dimension, on each of them."""
        found: Tensor = value.full_tensor() if self.sharded else value
        return found

    def placed(self, values: dict[str, Tensor], like: dict[str, Any]) -> dict[str, Tensor]:
        """Whole tensors by name as the processes hold those of `like`."""
        return {name: in_parts(value, like[name]) for name, value in values.items()} if self.sharded else values

    def placed_state(self, state: dict[str, Any], control: nn.Module) -> dict[str, Any]:
        """The whole state of an optimiser of the control's parameters as the processes hold it."""
        return state_in_parts(state, list(control.parameters())) if self.sharded else state

    def wait(self) -> None:
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()
