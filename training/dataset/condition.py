"""A preprocessor by its name and settings, as a file tells them, ready to make hints without the host."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...preprocessors import PREPROCESSORS, Parameter, Preprocessor
from ..errors import TrainingError
from .annotator_folder import networks_from
from .hints import Condition


def condition_from(
    name: str,
    parameters: Mapping[str, Any],
    *,
    resolution: int = 0,
    annotators: Path | None = None,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Condition:
    """The preprocessor called `name`; its networks from the folder `annotators`, on `device`. `resolution` of the shorter side, 0 for the picture's.

    It has been tried with one picture. Raises TrainingError for unknown names and for values of another kind, PreprocessorError for those that the
    preprocessor refuses, and what `networks_from` raises.
    """
    known = {one.id: one for one in PREPROCESSORS}
    if name not in known:
        raise _unknown("condition", name, known)
    preprocessor = known[name]
    checked = preprocessor.with_defaults(_checked(preprocessor, parameters))
    networks = networks_from(annotators, preprocessor.needed(checked), device, dtype)

    def annotate(image_bhwc: Tensor) -> Tensor:
        with torch.inference_mode():
            return preprocessor(image_bhwc.to(device), resolution, networks, **checked).cpu()

    # Noise: whatever is wrong with the settings shows here, and not with each of a million pictures.
    annotate(torch.rand((1, 128, 128, 3), generator=torch.Generator().manual_seed(0)))
    return Condition(name, annotate, checked)


def _checked(preprocessor: Preprocessor, parameters: Mapping[str, Any]) -> dict[str, Any]:
    known = {parameter.id: parameter for parameter in preprocessor.parameters}
    for name, value in parameters.items():
        if name not in known:
            raise _unknown(f"parameter of {preprocessor.id}", name, known)
        if not _fits(known[name], value):
            raise TrainingError(
                f"The parameter '{name}' of {preprocessor.id}",
                found=f"is {value!r}",
                expected=f"{_wanted(known[name])} was expected",
                remedy="change it",
            )
    return dict(parameters)


def _fits(parameter: Parameter, value: object) -> bool:
    if isinstance(parameter.default, bool):
        return isinstance(value, bool)
    if isinstance(parameter.default, str):
        return value in parameter.options
    kinds = (int,) if isinstance(parameter.default, int) else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool):
        return False
    low, high = parameter.minimum, parameter.maximum
    return (low is None or value >= float(low)) and (high is None or value <= float(high))


def _wanted(parameter: Parameter) -> str:
    if isinstance(parameter.default, bool):
        return "true or false"
    if isinstance(parameter.default, str):
        return " or ".join(f'"{option}"' for option in parameter.options)
    kind = "a whole number" if isinstance(parameter.default, int) else "a number"
    return f"{kind} from {parameter.minimum} to {parameter.maximum}"


def _unknown(what: str, name: object, known: Mapping[str, Any]) -> TrainingError:
    near = difflib.get_close_matches(str(name), known, 1)
    return TrainingError(
        f"The {what}",
        found=f"is {name!r}" if what == "condition" else f"'{name}' is none",
        expected=f"one of {', '.join(known)} was expected" if known else "it has none",
        remedy=f"did you mean '{near[0]}'?" if near else "change it",
    )
