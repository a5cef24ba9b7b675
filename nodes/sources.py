"""From a loaded file to the source of layers: one function for each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import comfy.controlnet
import torch

from ..checkpoints.adapter import AdapterHyperparameters
from ..checkpoints.family import Kind, Match
from ..control import AdapterControl, ControlError, EncoderNetwork, ForeignControl, LoraControl, SparseControl
from ..control.controlnext import ControlNeXtNetwork
from ..control.ctrlora import CtrLoraNetwork
from ..control.layer import Source
from ..control.lllite import LLLiteNetwork
from ..control.patch_network import PatchNetwork
from ..control.xs import XSNetwork


@dataclass(frozen=True)
class Held:
    """What is kept of a file, `value`: the patcher around its network, or for the kinds in UNPATCHED what its loader built."""

    value: Any
    match: Match
    name: str
    pooling: bool
    manual_cast_dtype: torch.dtype | None
    union_type: int | None


UNPATCHED: tuple[Kind, ...] = ("control lora", "host")
"""What the host puts into its memory management by itself."""


def encoder(network: type[EncoderNetwork]) -> Callable[[Held], Source]:
    def source(file: Held) -> Source:
        return network(
            file.value.model,
            file.value,
            file.name,
            file.match.base,
            file.pooling,
            file.manual_cast_dtype,
            file.union_type,
            about=file.match.about,
        )

    return source


def inside(network: type[PatchNetwork]) -> Callable[[Held], Source]:
    def source(file: Held) -> Source:
        return network(file.value.model, file.value, file.name, file.match.base, file.manual_cast_dtype)

    return source


def adapter(file: Held) -> Source:
    net: AdapterHyperparameters = file.match.hyperparameters
    control = AdapterControl(file.value)
    control.global_average_pooling = file.pooling
    # The host gives an adapter for gray hints the mean of a colour one.
    reads = (1, 3) if net.hint_channels == 1 else (net.hint_channels,)
    return ForeignControl(control, file.name, file.match.base, reads)


def control_lora(file: Held) -> Source:
    lora = LoraControl(file.value, file.name, file.match.base, file.pooling)
    return ForeignControl(lora, file.name, file.match.base, (file.match.hyperparameters.hint_channels,))


def host(file: Held) -> Source:
    control = file.value
    if file.pooling and not isinstance(control, comfy.controlnet.T2IAdapter):
        raise ControlError(
            f"{file.name} is {file.match.family.name}, whose residuals are tokens and no pictures, but pooling is on; set pooling to auto or off."
        )
    channels: int = file.match.hyperparameters.hint_channels
    own = control.copy()
    own.global_average_pooling = file.pooling
    return ForeignControl(own, file.name, file.match.base, (1, 3) if channels == 1 else (channels,), file=control)


def sparse(file: Held) -> Source:
    control = SparseControl(file.value, file.name, file.match.base, file.manual_cast_dtype)
    control.global_average_pooling = file.pooling
    return ForeignControl(control, file.name, file.match.base, (file.match.hyperparameters.hint_channels,))


SOURCES: Mapping[Kind, Callable[[Held], Source]] = {
    "encoder": encoder(EncoderNetwork),
    "ctrlora": encoder(CtrLoraNetwork),
    "adapter": adapter,
    "control lora": control_lora,
    "sparsectrl": sparse,
    "host": host,
    "controlnext": inside(ControlNeXtNetwork),
    "lllite": inside(LLLiteNetwork),
    "xs": inside(XSNetwork),
}
