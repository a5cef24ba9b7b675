"""How many pixels a hint needs for its canvas."""

from __future__ import annotations

from typing import Literal, get_args

from .errors import PreprocessorError
from .sizing import Size

Mode = Literal["crop", "fit", "stretch"]
"""How a picture of another aspect comes onto the canvas: *crop* fills it and cuts off what is over, *fit* shows all of the picture and leaves
borders, *stretch* pulls it. sd-webui-controlnet says "Crop and Resize", "Resize and Fill" and "Just Resize"."""
MODES: tuple[Mode, ...] = get_args(Mode)


def check_sizes(size: Size, target: Size, mode: str) -> None:
    """Raises PreprocessorError for sizes without a pixel and for another mode."""
    for name, one in (("picture", size), ("canvas", target)):
        if min(one) < 1:
            raise PreprocessorError(
                f"{name}: found {one.width}×{one.height} pixels, but at least 1×1 was expected; set its width and height."
            )
    if mode not in MODES:
        raise PreprocessorError(
            f'mode: found "{mode}", but one of {", ".join(MODES)} was expected; choose one of them.'
        )


def pixel_perfect(size: Size, target: Size, mode: Mode) -> int:
    """The resolution (pixels of the shorter side) at which a picture of `size` has as many pixels as its place on the canvas `target`.

    round(min(H, W) · min(h/H, w/W)) for *fit*, else with the larger of the two, so that no part of the canvas gets fewer pixels than it shows;
    at least 1. sd-webui-controlnet, "pixel perfect". Raises PreprocessorError.
    """
    check_sizes(size, target, mode)
    scales = (target.height / size.height, target.width / size.width)
    return max(1, round((min if mode == "fit" else max)(scales) * min(size)))
