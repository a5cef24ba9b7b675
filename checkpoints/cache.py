"""One network in memory for one file, however many nodes load it, for as long as anything uses it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
N = TypeVar("N")


class FileStamp(NamedTuple):
    """A file as it is on disk now; replacing the file changes it.

    Copying tools keep times and controls of one kind have one size, so the file's number and the time of its last change of any kind (on
    Windows of its creation) are part of it.
    """

    path: str
    modified_ns: int
    size: int
    number: int
    changed_ns: int


def file_stamp(path: Path) -> FileStamp:
    status = path.stat()
    return FileStamp(str(path.resolve()), status.st_mtime_ns, status.st_size, status.st_ino, status.st_ctime_ns)


class WeakCache(Generic[T, N]):
    """Values by key, each with a note; a value is kept only while somebody else holds it. One load at a time.

    Entries of values that are gone are dropped at the next `get`, not by a callback: the collector may call one in any thread, which would
    then have to wait for a load.
    """

    def __init__(self) -> None:
        self._entries: dict[Hashable, tuple[weakref.ref[T], N]] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, load: Callable[[], tuple[T, N]]) -> tuple[T, N]:
        """The value and note of `key`, from `load` if nobody holds the value."""
        with self._lock:
            if key in self._entries:
                reference, note = self._entries[key]
                held = reference()
                if held is not None:
                    return held, note
            for gone in [other for other, (reference, _) in self._entries.items() if reference() is None]:
                del self._entries[gone]
            value, note = load()
            self._entries[key] = weakref.ref(value), note
            return value, note

    def __len__(self) -> int:
        """How many values somebody holds."""
        with self._lock:
            return sum(reference() is not None for reference, _ in self._entries.values())
