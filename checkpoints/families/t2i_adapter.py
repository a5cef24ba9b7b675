"""T2I-Adapter: a small network that reads the hint alone and adds to the encoder's features, in three key layouts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from ..adapter import PIXELS, PIXELS_XL, AdapterHyperparameters, adapter_shapes, read_adapter
from ..base import ConnectedBase, other_base
from ..canonical import Canonical
from ..condition import AllOf, NoneOf
from ..encoder_shapes import MissingNameError, check_shapes, in_file, incomplete
from ..errors import IncompleteError
from ..family import Built, Family, Kind, Match
from ..heads import Heads
from ..tensors import main_dtype
from .controlnet import unchanged

NUMBER = re.compile("0|[1-9][0-9]{0,3}")
SD_WIDTHS = (320, 640, 1280, 1280)


@dataclass(frozen=True)
class AdapterLoader:
    """`rename` gives TencentARC's name of each canonical one."""

    rename: Callable[[Iterable[str]], Mapping[str, str]]
    kind: Kind = "adapter"
    adds_to_model: bool = False

    def match(self, family: Family, file: Canonical, connected: ConnectedBase | None) -> Match:
        names = {ours: theirs for theirs, ours in self.rename(file.tensors).items()}
        shapes = {ours: file.shape(theirs) for ours, theirs in names.items()}
        try:
            net = read_adapter(shapes)
        except MissingNameError as error:
            raise incomplete(file.path, family.noun, [in_file(str(error), names)], ()) from None
        check_shapes(file.path, family.noun, adapter_shapes(net), shapes, names)
        if net.in_channels == 0 or net.in_channels % PIXELS**2:
            raise IncompleteError(
                file.path,
                found=f"is a {family.noun} whose first convolution reads {net.in_channels} channels",
                expected=f"a multiple of {PIXELS**2} or {PIXELS_XL**2} was expected, the pixels of a square",
                remedy="use the node that its author made for it",
            )
        if connected is not None and widths_at(net, connected) != net.channels:
            raise other_base(file.path, adapter_base(net), connected)
        tensors = [file.tensors[theirs] for theirs in names.values()]
        return Match(
            family=family,
            base=adapter_base(net),
            hyperparameters=net,
            heads=Heads(count=None, width=None, source="no attention"),
            names={ours: file.tensors[theirs].name for ours, theirs in names.items()},
            parameter_count=sum(info.numel for info in tensors),
            dtype=main_dtype(tensors),
            pooling=None,
        )

    def build(self, match: Match, tensors: Mapping[str, Tensor]) -> Built:
        # Imported here: everything before this step runs without the host.
        from ..build_adapter import build_adapter

        return build_adapter(match, tensors)


def adapter_base(net: AdapterHyperparameters) -> str:
    """SD1 and SD2 have blocks of the same widths, and an adapter reads no text."""
    if net.channels == SD_WIDTHS:
        return "SDXL" if net.xl else "SD1 or SD2"
    return f"custom ({'-'.join(map(str, net.channels))} channels{', as SDXL' if net.xl else ''})"


def widths_at(net: AdapterHyperparameters, model: ConnectedBase) -> tuple[int, ...]:
    """The widths of the connected model's blocks that such an adapter adds to."""
    widths = tuple(mult * model.model_channels for mult in model.channel_mult)
    return (*widths, *widths[-1:]) if net.xl else widths


def tencent_names(names: Iterable[str]) -> dict[str, str]:
    """Diffusers name -> TencentARC's, for every name; one without a counterpart stays as it is (diffusers, models/adapter.py)."""
    names = list(names)
    light = "body.0.out_conv.weight" in names
    blocks = 0
    while f"body.0.resnets.{blocks}.block1.weight" in names:
        blocks += 1

    def renamed(name: str) -> str:
        parts = name.split(".")
        if parts[0] != "body" or len(parts) < 3 or not NUMBER.fullmatch(parts[1]):
            return name
        if light:
            return ".".join("body" if part == "resnets" else part for part in parts)
        if parts[2] == "resnets" and len(parts) > 3 and NUMBER.fullmatch(parts[3]):
            return ".".join(("body", str(int(parts[1]) * blocks + int(parts[3])), *parts[4:]))
        return ".".join(("body", str(int(parts[1]) * blocks), *parts[2:]))

    return {name: renamed(name) for name in names}


T2I_DIFFUSERS = Family(
    name="a T2I-Adapter (diffusers layout)",
    condition=AllOf("body.0.resnets.0.block1.weight"),
    loader=AdapterLoader(tencent_names),
)

T2I_FULL = Family(
    name="a T2I-Adapter (full)",
    condition=AllOf("conv_in.weight", "body.0.block2.weight"),
    loader=AdapterLoader(unchanged),
)

T2I_LIGHT = Family(
    name="a T2I-Adapter (light)",
    condition=AllOf(
        "body.0.in_conv.weight",
        "body.0.out_conv.weight",
        NoneOf("conv_in.weight", "body.0.resnets.0.block1.weight"),
    ),
    loader=AdapterLoader(unchanged),
)
