"""The host's Control-LoRA, refusing a model of another base before it samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import comfy.controlnet
from torch import Tensor

from .errors import ControlError


class LoraControl(comfy.controlnet.ControlLora):
    """`comfy.controlnet.ControlLora`: a control whose network is the sampled model's encoder with low-rank differences.

    `name` (the file) and `base` (SD1, SD2, SDXL) are for messages.
    """

    control_weights: Mapping[str, Tensor]
    manual_cast_dtype: Any

    def __init__(self, control_weights: Mapping[str, Tensor], name: str, base: str, pooling: bool = False) -> None:
        super().__init__(control_weights, global_average_pooling=pooling)
        self.name = name
        self.base = base
        self.control_model: Any = None  # the host's class has none before a run, and deletes it after each

    def copy(self) -> LoraControl:
        twin = LoraControl(self.control_weights, self.name, self.base, self.global_average_pooling)
        self.copy_to(twin)
        return twin

    def pre_run(self, model: Any, percent_to_timestep_function: Callable[[float], Any]) -> None:
        self._check_base(model)
        super().pre_run(model, percent_to_timestep_function)

    def share(self, first: LoraControl, model: Any, percent_to_timestep_function: Callable[[float], Any]) -> None:
        """As `pre_run`, with the network that another control of the same file has made for this run."""
        comfy.controlnet.ControlNet.pre_run(self, model, percent_to_timestep_function)
        self.manual_cast_dtype = first.manual_cast_dtype
        self.control_model = first.control_model

    def deepclone_multigpu(self, load_device: Any, autoregister: bool = False) -> Any:
        """Raises ControlError: the network is made in a run, out of the weights of one copy of the model."""
        raise ControlError(
            f"{self.name} is a Control-LoRA, which is made of the sampled model on one device, but the batch is split over several and one was "
            "expected; remove the node that samples on several GPUs, or use a whole ControlNet."
        )

    def _check_base(self, model: Any) -> None:
        """Raises ControlError unless every difference fits the weight that it is added to, in which the host reshapes it."""
        unet = {name: tuple(weight.shape) for name, weight in model.diffusion_model.state_dict().items()}
        for name, shape in differences(self.control_weights).items():
            weight = unet.get(name, ())
            if weight[:1] != shape[:1] or math.prod(weight) != math.prod(shape):
                base = type(model.model_config).__name__
                raise ControlError(
                    f"{self.name} is an {self.base} control with a difference of {' × '.join(map(str, shape))} for '{name}', but the model is "
                    f"{base}, which has {' × '.join(map(str, unet[name])) if name in unet else 'no such weight'}; use a control made for "
                    f"{base}, or a model of base {self.base}."
                )


def differences(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Name of a weight of the model -> shape of what is added to it."""
    modules = [name.removesuffix(".up") for name in weights if name.endswith(".up")]
    return {
        f"{module}.weight": (int(weights[f"{module}.up"].shape[0]), *map(int, weights[f"{module}.down"].shape[1:]))
        for module in modules
    }
