"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from .checkpoint import remove
from .errors import TrainingError

UNFINISHED = ".unfinished"


def write_whole(path: Path, write: Callable[[Path], Any], subject: str) -> None:
    """Lets `write` make a file beside `path`, and puts it there once it is on the disk. A file that is there is replaced.

    Raises TrainingError about `subject` for a disk that refuses; what was there before is there then.
    """
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.touch()
        rights = beside.stat().st_mode
        write(beside)
        # The library of safetensors makes files that nobody else may read.
        beside.chmod(rights)
        with beside.open("rb+") as written:
            os.fsync(written.fileno())
        beside.replace(path)
    # The library of safetensors has an error of its own for a disk that is full.
    except (OSError, SafetensorError) as error:
        remove(beside)
        raise TrainingError(
            subject,
            found=f"could not be written to '{path}' ({error})",
            expected="room and permission for it were expected",
            remedy="free some room, or choose another folder, and start again",
        ) from error
