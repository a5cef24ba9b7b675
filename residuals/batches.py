"""Batches: which of several pictures belongs to which latent when their numbers differ."""

from __future__ import annotations

from typing import Literal, get_args

BatchPolicy = Literal["cycle", "repeat", "hold last", "error"]
BATCH_POLICIES: tuple[BatchPolicy, ...] = get_args(BatchPolicy)


class BatchError(ValueError):
    """Pictures and latents differ in number in a way that cannot be meant."""


def picture_of(position: int, pictures: int, total: int, policy: BatchPolicy) -> int:
    """The picture (0 … pictures-1) for the latent at `position` of `total`.

    One picture serves all latents. Fewer pictures than latents: *cycle* starts over (0 1 0 1 0, as the host does), *repeat* holds each for an
    equal share (0 0 0 1 1), *hold last* stays on the last (0 1 1 1 1), *error* refuses. More pictures than latents raise BatchError.
    """
    if pictures < 1:
        raise BatchError(
            f"there are {pictures} pictures, but at least one was expected; check the node that makes them."
        )
    if policy not in BATCH_POLICIES:
        raise BatchError(
            f'the batch policy is "{policy}", but one of {", ".join(BATCH_POLICIES)} was expected; choose one of them.'
        )
    if not 0 <= position < total:
        raise BatchError(
            f"latent {position} was asked for, but the batch has {total}, counted from 0; give the length of the whole batch."
        )
    if pictures > total:
        raise BatchError(
            f"there are {pictures} pictures for {total} latent{'' if total == 1 else 's'}, but at most one for each was expected; "
            f"take {total} of them, or make the latent batch {pictures} long."
        )
    if pictures == 1:
        return 0
    if pictures < total and policy == "error":
        raise BatchError(
            f"there are {pictures} pictures for {total} latents, but one for each, or a single one, was expected by the batch policy "
            f'"error"; give {total} pictures, or choose {", ".join(p for p in BATCH_POLICIES if p != "error")}.'
        )
    if policy == "repeat":
        return position * pictures // total
    return min(position, pictures - 1) if policy == "hold last" else position % pictures
