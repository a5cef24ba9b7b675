"""What a trainable copy will be, before there is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .copy import Form
from .start import Start


@dataclass(frozen=True, eq=False)
class Recipe:
    """Arguments of `trainable_copy`. A graph hands this on in place of a module, which a second run would train on."""

    model: Any
    """The base: the host's ModelPatcher."""
    hint_channels: int = 3
    start: Start = "zero"
    form: Form = "copy"
    seed: int = 0
