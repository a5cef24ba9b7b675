"""Masks: where a control acts, from 0 (not at all) to 1 (fully)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

PATCHES = (1, 2)
"""Latent cells per side of one token, in the transformers whose controls the host can load."""


class MaskError(ValueError):
    """A mask cannot be read, or does not go with what it should mask."""


def prepare_mask(mask: object, invert: bool = False, feather: float = 0.0) -> Tensor:
    """The host's MASK (N, H, W) or (H, W) as a new (N, H, W) in float32, 0..1, at its own size.

    Values outside 0..1 are clamped. `feather` blurs with a Gaussian of sigma feather / 2 pixels, so an edge rises from 2 % to 98 % between that
    many pixels outside and that many inside of where it was; it stays in place, and the picture's border counts as continued.
    Raises MaskError for what is no mask.
    """
    if not isinstance(mask, Tensor) or mask.ndim not in (2, 3):
        found = f"a tensor of shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else f"{type(mask).__name__}"
        raise MaskError(
            f"mask is {found}, but a batch of masks (masks, height, width) was expected; connect a MASK output, "
            "for a picture through Convert Image to Mask."
        )
    if 0 in mask.shape:
        raise MaskError(
            f"mask is empty ({' × '.join(map(str, mask.shape))}), but at least one pixel was expected; check the node that makes it."
        )
    if not (math.isfinite(feather) and feather >= 0):
        raise MaskError(f"feather is {feather}, but a number of pixels from 0 was expected; type one, for example 16.")
    values = mask.detach().to(torch.float32)
    if not bool(torch.isfinite(values).all()):
        raise MaskError(
            "mask has pixels that are NaN or infinite, but numbers from 0 to 1 were expected; check the node that makes it."
        )
    values = values.clamp(0, 1).view(-1, *mask.shape[-2:])
    if invert:
        values = 1 - values
    return blur(values, feather / 2) if feather > 0 else values


def blur(mask_nhw: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of `sigma` pixels, cut off at 3 sigma, in float64 so that 0 and 1 stay what they are."""
    reach = math.ceil(3 * sigma)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    values = mask_nhw.to("cpu", torch.float64).unsqueeze(1)
    values = conv2d(pad(values, (reach, reach, 0, 0), mode="replicate"), kernel.view(1, 1, 1, -1))
    values = conv2d(pad(values, (0, 0, reach, reach), mode="replicate"), kernel.view(1, 1, -1, 1))
    return values.squeeze(1).clamp(0, 1).to(mask_nhw)


def average(mask_bchw: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Mean of the mask over each cell of a grid, in a new tensor; outside of its picture the mask counts as 0.

    `rows` (height + 1) and `columns` (width + 1) are the grid's lines in pixels of the mask, rising, not necessarily whole. A pixel that a line
    cuts counts in parts, so nothing thin is lost and the mean is kept. Counted in float64 on the CPU: the same on every device, and cells that
    are wholly inside or outside are exactly 1 or 0.
    """
    values = mask_bchw.to("cpu", torch.float64)
    for axis, lines in ((-2, rows), (-1, columns)):
        lines = lines.to("cpu", torch.float64)
        size = values.shape[axis]
        below = values.cumsum(axis)
        below = torch.cat([torch.zeros_like(below.narrow(axis, 0, 1)), below], axis)  # sum of all before each pixel
        inside = lines.clamp(0, size)
        whole = inside.floor().long().clamp(max=size - 1)
        shape = [-1 if place == axis % values.ndim else 1 for place in range(values.ndim)]
        sums = below.index_select(axis, whole) + values.index_select(axis, whole) * (inside - whole).view(shape)
        values = sums.diff(dim=axis) / lines.diff().view(shape)
    return values.clamp(0, 1).to(mask_bchw)


def grid(size: int, cells: int) -> Tensor:
    """Lines of `cells` equal cells over `size` pixels."""
    return torch.arange(cells + 1, dtype=torch.float64) * (size / cells)


def shrink(mask_bchw: Tensor, height: int, width: int) -> Tensor:
    """The mask at `height` × `width`, each value the mean over its part of the mask; any sizes, larger ones too."""
    if tuple(mask_bchw.shape[-2:]) == (height, width):
        return mask_bchw
    return average(mask_bchw, grid(mask_bchw.shape[-2], height), grid(mask_bchw.shape[-1], width))


def mask_for(shape: Sequence[int], mask_bchw: Tensor, frames: int = 1) -> Tensor:
    """The mask (N, 1, h, w), at the latent's size, as a factor for a residual of `shape` with N (or 1, or N = 1 and any) rows.

    A residual is (rows, channels, height, width), (rows, channels, frames, height, width), or that of a transformer: (rows, tokens, channels)
    with one token for each cell, or for 2 × 2 of them (odd sizes rounded up), of each of `frames`, row by row.
    Raises MaskError for a residual that has no place on the picture.
    """
    height, width = mask_bchw.shape[-2:]
    if len(shape) == 4:
        return shrink(mask_bchw, shape[2], shape[3])
    if len(shape) == 5:
        return shrink(mask_bchw, shape[3], shape[4]).unsqueeze(2)
    if len(shape) == 3:
        for patch in PATCHES:
            rows, columns = -(-height // patch), -(-width // patch)
            if rows * columns * frames == shape[1]:
                lines = [
                    (torch.arange(n + 1) * patch).clamp(max=size) for n, size in ((rows, height), (columns, width))
                ]
                tokens = average(mask_bchw, *lines).flatten(1)
                return tokens.repeat(1, frames).unsqueeze(2)
    raise MaskError(
        f"a mask for {width}×{height} latent cells does not go with a residual of {' × '.join(map(str, shape))}: height and width, or one token "
        f"per {' or '.join(f'{patch}×{patch}' for patch in PATCHES)} cells, were expected; remove the mask from this layer."
    )


def normalised(masks: Sequence[Tensor], index: int) -> Tensor:
    """The mask at `index` where those of several layers overlap: divided by the sum of all wherever that is more than 1.

    So no place gets more than one full control, and where masks do not overlap they stay as they are. Each (N or 1, 1, h, w) of one size.
    """
    sizes = sorted({tuple(mask.shape[1:]) for mask in masks})
    if len(sizes) > 1:
        raise MaskError(
            f"masks of sizes {' and '.join(' × '.join(map(str, size)) for size in sizes)} cannot be normalised, but one size was expected; "
            "bring them to the size of the latent first."
        )
    total = masks[0]
    for mask in masks[1:]:
        total = total + mask
    return masks[index] / total.clamp(min=1)
