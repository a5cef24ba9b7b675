"""The input that says whether the network of a layer runs beside the model."""

from __future__ import annotations

from typing import get_args

from comfy_api.latest import io

from ..control.layer import Beside


def beside_input() -> io.Input:
    return io.Combo.Input(
        "beside_model",
        options=list(get_args(Beside)),
        default="auto",
        optional=True,
        advanced=True,
        tooltip="Runs the control's network at the same time as the first half of the model, in place of before it. on: wherever there is an NVIDIA GPU. "
        "auto: on those on which that was measured to be faster, so far none. off: never. The picture is the same either way. The GPU needs room for "
        "both at once; Control Report tells what happened.",
    )
