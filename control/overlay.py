"""Overlays: a hint drawn over a result, so that one sees whether it was followed."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from ..preprocessors import canny
from ..residuals.batches import BatchError, BatchPolicy, picture_of
from .errors import ControlError
from .placing import Placing, Sizing, place_hint

Mode = Literal["lines over", "blend", "compare edges"]
MODES: tuple[Mode, ...] = get_args(Mode)
COLOURS: dict[str, tuple[float, float, float] | None] = {
    "magenta": (1.0, 0.0, 0.8),
    "red": (1.0, 0.1, 0.1),
    "yellow": (1.0, 0.85, 0.0),
    "green": (0.1, 0.9, 0.2),
    "cyan": (0.0, 0.85, 1.0),
    "white": (1.0, 1.0, 1.0),
    "as it is": None,
}

FOLLOWED, MISSED, OWN = (0.1, 0.9, 0.2), (1.0, 0.15, 0.1), (0.35, 0.45, 1.0)
"""Colours of "compare edges": in both, in the hint only, in the picture only."""
TOLERANCE = 2
"""Pixels beside a line of the hint in which an edge of the picture counts as following it: an edge of a latent cell is no finer."""
EDGE = 0.5
"""Brightness from which a hint's pixel is a line."""


def overlay(
    image_bhwc: Tensor,
    hint_bhwc: Tensor,
    *,
    mode: Mode = "lines over",
    opacity: float = 0.8,
    colour: str = "magenta",
    sizing: Sizing = "crop",
    policy: BatchPolicy = "cycle",
) -> Tensor:
    """The pictures (N, H, W, 3) in 0..1 with their hints over them, float32, on the pictures' device.

    *lines over* draws the bright parts of the hint in a `colour` of `COLOURS`; dark parts leave the picture as it is. *blend* mixes hint and
    picture everywhere. *compare edges* greys the picture and draws lines: green where the picture has an edge along one of the hint, red where
    the hint has one and the picture none, blue where only the picture has one.

    The hint is laid on the picture as `sizing` laid it on the latent; `policy` as in `picture_of`. Raises ControlError for what are no pictures.
    """
    for name, value in (("image", image_bhwc), ("hint", hint_bhwc)):
        check_pictures(name, value)
    for name, choice, known in (("mode", mode, MODES), ("colour", colour, tuple(COLOURS))):
        if choice not in known:
            raise ControlError(
                f'{name} of Hint Overlay is "{choice}", but one of {", ".join(known)} was expected; choose one of them.'
            )
    if not 0.0 <= opacity <= 1.0:
        raise ControlError(
            f"opacity of Hint Overlay is {opacity}, but a number from 0, only the picture, to 1 was expected; type one, for example 0.8."
        )
    pictures, hints = image_bhwc.shape[0], hint_bhwc.shape[0]
    if hints > pictures:
        raise ControlError(
            f"hint of Hint Overlay has {hints} pictures, but at most {pictures} were expected, one for each of image; "
            "connect the hints of these pictures only."
        )
    try:
        which = [picture_of(place, hints, pictures, policy) for place in range(pictures)]
    except BatchError:
        raise ControlError(
            f'hint of Hint Overlay has {hints} pictures for {pictures} of image, but with the policy "error" one for each, or a single one, was '
            "expected; choose another policy, or give one hint for each picture."
        ) from None
    placing = Placing(sizing)
    result = torch.empty((*image_bhwc.shape[:3], 3), dtype=torch.float32, device=image_bhwc.device)
    for number, (image, picture) in enumerate(zip(image_bhwc, which, strict=True)):  # one by one: videos are long
        image_hwc = colours_of(image.float()).clamp(0.0, 1.0)
        hint_chw = colours_of(hint_bhwc[picture].to(image.device, torch.float32)).clamp(0.0, 1.0).movedim(-1, 0)
        height, width = image_hwc.shape[:2]
        placed = place_hint(hint_chw[None], height, width, placing, pixels_per_cell=1)[0]
        result[number] = _drawn(image_hwc, placed.movedim(0, -1), mode, opacity, COLOURS[colour])
    return result


def check_pictures(name: str, value: object) -> None:
    """Raises ControlError unless `value` is an IMAGE: (N, H, W, 1, 3 or 4), not empty, finite."""
    if not isinstance(value, Tensor) or value.ndim != 4:
        found = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ControlError(
            f"{name} of Hint Overlay is {found}, but a batch of pictures (pictures, height, width, channels) was expected; "
            "connect an IMAGE output."
        )
    if 0 in value.shape or value.shape[-1] not in (1, 3, 4):
        raise ControlError(
            f"{name} of Hint Overlay is {' × '.join(map(str, value.shape))} (pictures, height, width, channels), but at least one picture with "
            "1, 3 or 4 channels was expected; check the node that makes it."
        )
    if not all(math.isfinite(float(picture.float().sum())) for picture in value):
        raise ControlError(
            f"{name} of Hint Overlay has pixels that are NaN or infinite, but numbers from 0 to 1 were expected; "
            "check the node that makes the picture."
        )


def colours_of(picture_hwc: Tensor) -> Tensor:
    """Three channels: grey repeated, alpha left out."""
    return picture_hwc.expand(*picture_hwc.shape[:2], 3) if picture_hwc.shape[-1] == 1 else picture_hwc[..., :3]


def _drawn(
    image_hwc: Tensor, hint_hwc: Tensor, mode: Mode, opacity: float, colour: tuple[float, float, float] | None
) -> Tensor:
    bright = hint_hwc.amax(dim=-1, keepdim=True)
    if mode == "compare edges":
        return _compared(image_hwc, bright > EDGE, opacity)
    paint = hint_hwc if colour is None else bright * hint_hwc.new_tensor(colour)
    amount = opacity * bright if mode == "lines over" else opacity
    return image_hwc * (1.0 - amount) + paint * opacity


def _compared(image_hwc: Tensor, lines: Tensor, opacity: float) -> Tensor:
    edges = canny(image_hwc[None])[0, ..., :1].to(image_hwc.device) > EDGE
    drawn = (image_hwc.mean(dim=-1, keepdim=True) * 0.35).expand_as(image_hwc)
    near_edge, near_line = _widened(edges, TOLERANCE), _widened(lines, TOLERANCE)
    for where, colour in (
        (edges & ~near_line, OWN),
        (lines & ~near_edge, MISSED),
        (lines & near_edge, FOLLOWED),
    ):
        drawn = torch.where(where, drawn * (1.0 - opacity) + opacity * drawn.new_tensor(colour), drawn)
    return drawn


def _widened(mask_hw1: Tensor, pixels: int) -> Tensor:
    pooled = max_pool2d(mask_hw1.float().movedim(-1, 0)[None], 2 * pixels + 1, stride=1, padding=pixels)
    return pooled[0].movedim(0, -1) > 0
