"""A lock on an open file, released by the system when its holder ends, however it ends."""

from __future__ import annotations

import errno
import os
import sys

FAR = 1 << 40
"""Where Windows locks a byte: beyond any file, as what is locked there cannot be read."""


def lock(descriptor: int) -> bool:
    """Locks an open file for this holder alone; False where another has it. True too where the disk knows no locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            at = os.lseek(descriptor, 0, os.SEEK_CUR)
            os.lseek(descriptor, FAR, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, at, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        return problem.errno not in (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK)
    return True
