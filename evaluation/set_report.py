"""What was measured of two sets of pictures, in words."""

from __future__ import annotations

from .clip_score import ClipScore
from .sets import SUBSET, SUBSETS, SetDistance


def set_report(distance: SetDistance | None, clip: ClipScore | None) -> str:
    """A paragraph for each that is there, with the network's name and what the number can be compared with."""
    return "\n\n".join([*_distance(distance), *_clip(clip)])


def _distance(distance: SetDistance | None) -> list[str]:
    if distance is None:
        return []
    subset = min(SUBSET, distance.real, distance.made)
    return [
        f"FID {distance.fid:.3f} (lower is better, from 0)\n"
        f"KID {distance.kid:.5f} (lower is better, about 0 for sets of one kind), ± {distance.kid_spread:.5f} over {SUBSETS} subsets of {subset}\n"
        f"between {distance.real} real and {distance.made} made pictures, in the eyes of {distance.network}.\n"
        "FID is larger the fewer pictures there are: compare it only with one of as many pictures in the eyes of the same network."
    ]


def _clip(clip: ClipScore | None) -> list[str]:
    if clip is None:
        return []
    count = len(clip.per_picture)
    return [
        f"CLIP score {clip.mean:.2f} (higher is better, 0 to 100), mean of {count} made picture{'' if count == 1 else 's'}, "
        f"in the eyes of {clip.network}."
    ]
