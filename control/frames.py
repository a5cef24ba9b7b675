"""Frames: which latents of the whole batch a call shows, when the host samples a long batch in windows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy.context_windows import IndexListContextWindow

from .areas import KEY
from .errors import ControlError


def frames_of(options: Mapping[str, Any], per_chunk: int) -> tuple[tuple[int, ...], int]:
    """The position in the whole batch of each of the `per_chunk` latents of a chunk, and the length of the batch.

    A window of the host need not be in order: it may wrap around the end, begin with the frame before it, and have frames that all windows share.
    Windows over the time of a video latent leave the batch as it is. Raises ControlError for a window that does not go with the latents.
    """
    window = options.get("context_window")
    if window is None:
        return animated(options, per_chunk) or (tuple(range(per_chunk)), per_chunk)
    if not isinstance(window, IndexListContextWindow):
        raise ControlError(
            f"The context window is {type(window).__name__}, but one of the host's windows, which list their frames, was expected, so the hints "
            "cannot stay with their frames; use the host's Context Windows node."
        )
    if window.dim != 0:
        return tuple(range(per_chunk)), per_chunk
    anchor = getattr(window, "causal_anchor_index", None)  # set by the host only where there is one
    indices = [*([] if anchor is None or anchor < 0 else [anchor]), *window.index_list]
    if len(indices) != per_chunk:
        raise ControlError(
            f"The context window has {len(indices)} frames, but the latent of this call {per_chunk} and as many were expected, so the hints cannot "
            "stay with their frames; remove the node that changes the batch inside of the windows."
        )
    call = options.get(KEY)
    for position in () if call is None else call.retained:
        indices[position] = position % window.total_frames  # the host writes frame k of the batch over position k
    return tuple(indices), window.total_frames


def animated(options: Mapping[str, Any], per_chunk: int) -> tuple[tuple[int, ...], int] | None:
    """The same from AnimateDiff-Evolved's own windows, which it shows to other packs under keys that it promises to keep; None without them."""
    shown = options.get("ad_params")
    if not isinstance(shown, Mapping) or not shown.get("sub_idxs"):
        return None
    indices, total = tuple(int(index) for index in shown["sub_idxs"]), int(shown["full_length"])
    return (indices, total) if len(indices) == per_chunk and max(indices) < total else None
