"""Memory for converted weights: ordinary tensors, wherever their pages come from."""

from __future__ import annotations

import copy

import pytest
import torch

from control_composer.checkpoints import memory


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float8_e5m2])
@pytest.mark.parametrize("shape", [(3,), (0, 7), (1024, 3, 1024), ()])
@pytest.mark.parametrize("huge", [True, False])
def test_a_tensor_of_its_own(
    shape: tuple[int, ...], dtype: torch.dtype, huge: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not huge:
        monkeypatch.setattr(memory, "HUGE_PAGES", None)
    first, second = memory.empty(shape, dtype), memory.empty(shape, dtype)
    assert first.shape == shape and first.dtype == dtype and first.is_contiguous()
    assert first.untyped_storage().nbytes() == first.nbytes
    first.fill_(1.0)
    second.fill_(2.0)
    twin = copy.deepcopy(first)
    assert bool((first.float() == 1).all()) and bool((second.float() == 2).all()) and bool((twin.float() == 1).all())


def test_a_kernel_without_huge_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "HUGE_PAGES", 9999)  # advice that no kernel knows
    assert memory.empty((1024, 1024), torch.float32).fill_(3.0).sum() == 3 * 2**20
