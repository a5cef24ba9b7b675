"""Foreign controls: those of the host or of other packs, whose residuals are shaped as they come."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch


@dataclass(frozen=True, eq=False)
class ForeignControl:
    """A control of another kind with its hint, strength and range already set, and no predecessor in a chain."""

    control: Any
    name: str

    @property
    def key(self) -> int:
        return id(self.control)

    def clone_to(self, device: torch.device) -> ForeignControl:
        return replace(self, control=self.control.deepclone_multigpu(device))
