"""Where a measurement was made: the words that stand above its numbers."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]


def hardware(device: str = "cpu") -> str:
    """One phrase: the GPU's name, or the processor's kind with the threads that torch uses."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU with {torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"


def commit() -> str | None:
    """The checkout's commit, with "+" where a tracked file was changed since; None outside a checkout."""
    try:
        described = ["describe", "--always", "--abbrev=10", "--exclude=*", "--dirty=+"]
        return subprocess.run(["git", *described], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
