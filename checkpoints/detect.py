"""From names to a family, or to the sentence that says why not."""

from __future__ import annotations

from collections.abc import Sequence

from .base import ConnectedBase
from .canonical import Canonical
from .encoder_shapes import quoted
from .errors import RefusedFamilyError, UnknownFileError, short
from .families import CONTROLNET_CLDM, FAMILIES
from .family import Family, Match


def detect(file: Canonical, connected: ConnectedBase | None = None) -> Match:
    """Family, base and hyperparameters of a file; the names decide the family, the shapes all the rest.

    Raises RefusedFamilyError, UnknownFileError, IncompleteError, BaseMismatchError or AmbiguousHeadsError.
    """
    family = find_family(file, FAMILIES)
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
    nearest = min(like or [CONTROLNET_CLDM], key=lambda family: len(family.condition.missing(file.tensors)))
    lacking = " and ".join(nearest.condition.missing(file.tensors))
    keys = f"whose first keys are {quoted(list(file.tensors))}" if file.tensors else "without any tensor"
    return UnknownFileError(
        file.path,
        found=f"is an unknown file {keys}",
        expected=f"the nearest kind, {nearest.name}, would have {lacking}",
        remedy="check that this is the file you meant, or load it with the node that its author made for it",
    )
