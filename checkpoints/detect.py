"""From names to a family, or to the sentence that says why not."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .base import ConnectedBase
from .canonical import Canonical, within
from .encoder_shapes import quoted
from .errors import IncompleteError, RefusedFamilyError, UnknownFileError, short
from .families import CONTROLNET_CLDM, CONTROLNET_DIFFUSERS, FAMILIES
from .family import Family, Match

PLAIN = (CONTROLNET_DIFFUSERS, CONTROLNET_CLDM)
MOST_WRAPPERS = 3
PART = re.compile(r"-(\d{5})-of-(\d{5})\b")
"""How Hugging Face's libraries name the files of a network that they saved in several."""


def detect(file: Canonical, connected: ConnectedBase | None = None) -> Match:
    """Family, base and hyperparameters of a file; the names decide the family, the shapes all the rest.

    Raises RefusedFamilyError, UnknownFileError, IncompleteError, BaseMismatchError or AmbiguousHeadsError.
    """
    part = PART.search(file.path.name)
    try:
        return _detect(file, connected)
    except (IncompleteError, RefusedFamilyError, UnknownFileError):
        if part is None:
            raise
    raise IncompleteError(
        file.path,
        found=f"is number {int(part[1])} of {int(part[2])} files into which a network was split",
        expected="a whole network in one file was expected",
        remedy="choose its version in one file, or save it as one (in diffusers: save_pretrained with max_shard_size='20GB')",
    )


def _detect(file: Canonical, connected: ConnectedBase | None) -> Match:
    layers = [file]
    while len(layers) <= MOST_WRAPPERS and (inner := within(layers[-1])) is not None:
        layers.append(inner)
    # From the inside: some families are known by parts of names, which they have in a wrapper too.
    found = ((layer, family) for layer in reversed(layers) if (family := find_family(layer, FAMILIES)) is not None)
    file, family = next(found, (file, None))
    if family is None:
        raise unknown(file, FAMILIES)
    if family.loader is None:
        evidence = family.condition.evidence(file.tensors)
        sign = f" (it has the key '{short(evidence)}')" if evidence else ""
        raise RefusedFamilyError(
            file.path, found=f"is {family.name}{sign}", expected="a ControlNet was expected", remedy=family.remedy
        )
    return family.loader.match(family, file, connected)


def find_family(file: Canonical, families: Sequence[Family]) -> Family | None:
    """The first family whose condition holds."""
    return next((family for family in families if family.condition.holds(file.tensors)), None)


def unknown(file: Canonical, families: Sequence[Family]) -> UnknownFileError:
    """Name the nearest family that could be loaded, what the file lacks of it, and the file's first keys."""
    loadable = [family for family in families if family.loader is not None]
    like = [family for family in loadable if family.condition.evidence(file.tensors) is not None]
    # Of several equally near the plain ControlNets, which most files are.
    nearest = min(
        like or [CONTROLNET_CLDM],
        key=lambda family: (len(family.condition.missing(file.tensors)), family not in PLAIN),
    )
    lacking = " and ".join(nearest.condition.missing(file.tensors))
    keys = f"whose first keys are {quoted(list(file.tensors))}" if file.tensors else "without any tensor"
    return UnknownFileError(
        file.path,
        found=f"is an unknown file {keys}",
        expected=f"the nearest kind, {nearest.name}, would have {lacking}",
        remedy="check that this is the file you meant, or load it with the node that its author made for it",
    )
