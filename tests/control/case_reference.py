"""Reference control, which has no file."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from control_composer.control import Control
from control_composer.control.reference import Mode, ReferenceNetwork
from control_composer.demo.world import load_world
from control_composer.tests import narrow
from control_composer.tests.control.case import Case


@cache
def vae() -> Any:
    """A narrow VAE of the host's classes: the demo world's."""
    return load_world().vae


def reference(kind: str, mode: Mode) -> Callable[[Path], Case]:
    def make(folder: Path) -> Case:
        model = narrow.make_model(kind)
        network = ReferenceNetwork.of(model.model, mode)
        return Case(kind, model, Control.unbound(network), None, network.name, {"vae": vae()})

    return make
