"""What is said of a file that is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from control_composer.checkpoints import CheckpointError, open_control

Save = Callable[..., Path]


def refusal(path: Path, kind: type[CheckpointError]) -> str:
    with pytest.raises(kind) as caught:
        open_control(path)
    assert type(caught.value) is kind
    text = str(caught.value)
    assert text.startswith(f"'{path.name}' ") and text.endswith(".") and "\n" not in text
    assert all(part in text for part in (caught.value.found, caught.value.expected, caught.value.remedy))
    return text


def some(*names: str) -> dict[str, Tensor]:
    return {name: torch.zeros(1) for name in names}
