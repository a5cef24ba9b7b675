"""Single modules of the PyPI package controlnet-aux: importing the package itself would import all of its annotators, for a minute."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
import warnings
from typing import Any

import pytest

ALONE = "controlnet_aux_alone"


def controlnet_aux(module: str) -> Any:
    """`controlnet_aux.<module>`; the test is skipped where the package is not installed."""
    found = importlib.util.find_spec("controlnet_aux")
    if found is None or found.submodule_search_locations is None:
        pytest.skip("no controlnet-aux")
    if ALONE not in sys.modules:
        package = types.ModuleType(ALONE)
        package.__path__ = list(found.submodule_search_locations)
        sys.modules[ALONE] = package
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(f"{ALONE}.{module}")
