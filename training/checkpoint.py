"""The state of a training on disk: either the whole of one or the whole of the one before."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from .errors import TrainingError

NAME = "training.pt"


@dataclass(frozen=True, eq=False)
class State:
    """Everything that the next step depends on."""

    step: int
    """Steps done."""
    control: dict[str, Tensor]
    average: dict[str, Tensor]
    optimiser: dict[str, Any]
    scaler: dict[str, Any]
    window: Tensor
    """What was summed up since the last row of the log."""
    identity: dict[str, Any]
    """What must not change between stop and continuation."""


def save(folder: Path, state: State) -> None:
    """Writes `folder`/training.pt. The one before stays until the new one is whole and on the disk.

    Raises TrainingError where that fails, as on a full disk; the one before is there then.
    """
    path = folder / NAME
    unfinished = path.with_suffix(".unfinished")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            _write(file, {field.name: getattr(state, field.name) for field in fields(state)})
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        _to_disk(folder)
    # torch says RuntimeError for a file that cannot be written on.
    except (OSError, RuntimeError) as error:
        remove(unfinished)
        before = "the one before is whole and stays" if path.is_file() else "there is none before"
        raise TrainingError(
            f"The state of the training after step {state.step}",
            found=f"could not be written to '{path}' ({error})",
            expected=f"room and permission for it were expected ({before})",
            remedy="free some room, or choose another folder, and start again to continue",
        ) from error


def load(folder: Path, device: torch.device) -> State | None:
    """The state in `folder`, or None where there is none. Raises TrainingError for a file that is none of ours."""
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        held = torch.load(path, map_location=device, weights_only=True)
        return State(**held)
    except (OSError, RuntimeError, EOFError, TypeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise TrainingError(
            f"'{path}'",
            found=f"cannot be read ({str(error).splitlines()[0] if str(error) else type(error).__name__})",
            expected="the state of a training was expected",
            remedy="choose an empty folder to begin anew",
        ) from error


def _write(file: IO[bytes], content: dict[str, Any]) -> None:
    torch.save(content, file)


def _to_disk(folder: Path) -> None:
    """The renaming itself; Windows knows no such call."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove(path: Path) -> None:
    """Deletes an unfinished file, if that can be done."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # the next attempt overwrites it
