"""Memory for weights that are converted or copied out of their file."""

from __future__ import annotations

import contextlib
import math
import mmap

import torch
from torch import Tensor

# Below this, the C library's own memory is as fast; a system call and a map of their own are for the few large tensors.
LARGE = 2 * 2**20
HUGE_PAGES = getattr(mmap, "MADV_HUGEPAGE", None)
"""Linux alone has it, and it is only advice there: a system without huge pages gives small ones."""


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor in the CPU's memory, its numbers not set; a large one in huge pages, where the system has them.

    Most of the time of a conversion goes into the 4 KiB pages that the system hands out and clears one by one (benchmarks/loading.py).
    """
    size = math.prod(shape) * dtype.itemsize
    if HUGE_PAGES is None or size < LARGE:
        return torch.empty(shape, dtype=dtype)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # of a kernel that was built without them
        memory.madvise(HUGE_PAGES)
    return torch.frombuffer(memory, dtype=dtype).view(shape)
