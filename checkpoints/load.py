"""From a path to a network: read, canonical names, detect, check, build."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .base import ConnectedBase
from .beside import beside
from .canonical import canonical
from .detect import detect
from .errors import BadWeightsError, TooLargeError, short
from .family import Built, Match, dtype_name
from .mapping import may_stay_mapped
from .read import open_checkpoint
from .tensors import Checkpoint

NAN, INFINITY = "NaN (not a number)", "infinity"
# Without the sign: the byte that is infinity (where the dtype has one) and the least that is NaN (Open Compute Project, 8-bit floating point, revision 1.0).
NOT_FINITE = {torch.float8_e4m3fn: (None, 0x7F), torch.float8_e5m2: (0x7C, 0x7D)}
# Bytes looked at in one go: what stays in a processor's cache.
PART = 2**20

NEW_FILE = "get the file from its source again, since its training or its conversion went wrong"


@dataclass(frozen=True, eq=False)
class Loaded:
    """A control network of the host and what it is."""

    match: Match
    built: Built

    def describe(self) -> str:
        """What the node shows, one fact a line."""
        return f"{self.match.describe()}\n{self.computes}"

    @property
    def computes(self) -> str:
        """The dtypes in which it computes and is held."""
        cast = self.built.manual_cast_dtype
        held = f", held in {dtype_name(self.built.dtype)}" if cast is not None else ""
        return f"computes in: {dtype_name(cast or self.built.dtype)}{held}"


@dataclass(frozen=True, eq=False)
class Opened:
    """A control file that is known and accounted for, its weights not yet read."""

    checkpoint: Checkpoint
    match: Match

    def load(self) -> Loaded:
        """The network, in the host's hands. Raises BadWeightsError or UnreadableFileError."""
        weights = read_weights(self.checkpoint, self.match, mapped=may_stay_mapped(self.checkpoint.path))
        return build_network(self.checkpoint.path, self.match, weights)


def build_network(path: Path, match: Match, weights: Mapping[str, Tensor]) -> Loaded:
    """The network with these weights (names of the network). Raises BadWeightsError for numbers too large for the dtype that the host wants."""
    loader = match.family.loader
    assert loader is not None, "only families with a loader are matched"
    try:
        return Loaded(match, loader.build(match, weights))
    except TooLargeError as error:
        raise BadWeightsError(
            path,
            found=f"holds {error.number:g} in its tensor '{short(match.names.get(error.name, error.name))}'",
            expected=f"at most {torch.finfo(error.dtype).max:g} was expected, the largest {dtype_name(error.dtype)}, in which the host keeps its weights",
            remedy="start the host with --fp32-unet",
        ) from None


def open_control(path: Path, connected: ConnectedBase | None = None) -> Opened:
    """What a file is; of a safetensors file only the header is read. `connected` is the model that it will steer, if known.

    Raises CheckpointError, whose text is one sentence for the user.
    """
    checkpoint = open_checkpoint(path)
    return Opened(checkpoint, detect(canonical(checkpoint, beside(path)), connected))


def load_checkpoint(path: Path, connected: ConnectedBase | None = None) -> Loaded:
    """The network of a control file, in the host's hands. Raises CheckpointError."""
    return open_control(path, connected).load()


def read_weights(checkpoint: Checkpoint, match: Match, mapped: bool = True) -> dict[str, Tensor]:
    """The tensors of a match under the network's names, all of them finite floating-point numbers.

    `mapped`: left in the file where its format allows it (see `Fetch`).
    """
    stored = checkpoint.fetch(match.names.values(), mapped)
    loader = match.family.loader
    bad = first_bad(stored, integers=loader is not None and loader.kind == "host")
    if bad is not None:
        name, what = bad
        raise BadWeightsError(
            checkpoint.path,
            found=f"holds {what} in its tensor '{name}'",
            expected="finite numbers were expected",
            remedy=NEW_FILE,
        )
    return {ours: stored[theirs] for ours, theirs in match.names.items()}


def first_bad(tensors: Mapping[str, Tensor], integers: bool = False) -> tuple[str, str] | None:
    """The first tensor that is no floating-point one (unless `integers` may be) or has NaN or infinity in it, and which of these."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            if integers:
                continue
            return name, dtype_name(tensor.dtype)
        if tensor.dtype in NOT_FINITE:
            what = bad_byte(tensor)
            if what is not None:
                return name, what
            continue
        # Not finite with one NaN or infinity among the numbers, and the cheapest of all passes over them (six times isfinite's speed).
        if math.isfinite(tensor.sum().item()):
            continue
        # The sum of finite numbers can overflow; smallest and largest cannot.
        extremes = torch.stack(torch.aminmax(tensor))
        if torch.isnan(extremes).any():
            return name, NAN
        if torch.isinf(extremes).any():
            return name, INFINITY
    return None


def bad_byte(tensor: Tensor) -> str | None:
    """NaN or infinity in a tensor of float8, whose numbers torch can neither add nor compare; told by their bits."""
    infinity, nan = NOT_FINITE[tensor.dtype]
    parts = tensor.contiguous().view(-1).view(torch.uint8).split(PART)
    largest = max((int((part & 0x7F).max()) for part in parts if len(part)), default=0)
    if largest >= nan:
        return NAN
    return INFINITY if largest == infinity else None
