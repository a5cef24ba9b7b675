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
    """A file as it is on disk now; replacing the file changes it."""

    path: str
    modified_ns: int
    size: int


def file_stamp(path: Path) -> FileStamp:
    status = path.stat()
    return FileStamp(str(path.resolve()), status.st_mtime_ns, status.st_size)


class WeakCache(Generic[T, N]):
    """Values by key, each with a note; a value is kept only while somebody else holds it. One load at a time."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, tuple[weakref.ref[T], N]] = {}
        self._lock = threading.RLock()

    def get(self, key: Hashable, load: Callable[[], tuple[T, N]]) -> tuple[T, N]:
        """The value and note of `key`, from `load` if nobody holds the value."""
        with self._lock:
            reference, note = self._entries.get(key, (None, None))
            value = reference() if reference is not None else None
            if value is None or note is None:
                value, note = load()
                self._entries[key] = weakref.ref(value, lambda gone: self._forget(key, gone)), note
            return value, note

    def _forget(self, key: Hashable, gone: weakref.ref[T]) -> None:
        with self._lock:
            if key in self._entries and self._entries[key][0] is gone:
                del self._entries[key]

    def __len__(self) -> int:
        return len(self._entries)
