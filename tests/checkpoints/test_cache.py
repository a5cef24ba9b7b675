"""One network for one file while anything uses it, none after that, a new one for a replaced file."""

from __future__ import annotations

import gc
import os
from pathlib import Path

from control_composer.checkpoints.cache import WeakCache, file_stamp


class Network:
    pass


def test_a_value_in_use_is_not_loaded_again() -> None:
    cache: WeakCache[Network, str] = WeakCache()
    first, note = cache.get("key", lambda: (Network(), "note"))
    second, _ = cache.get("key", lambda: (Network(), "another note"))
    assert second is first and note == "note"
    other, _ = cache.get("other key", lambda: (Network(), ""))
    assert other is not first


def test_a_value_that_nobody_uses_is_gone() -> None:
    cache: WeakCache[Network, str] = WeakCache()
    value, _ = cache.get("key", lambda: (Network(), "first"))
    del value
    gc.collect()
    assert len(cache) == 0
    _, note = cache.get("key", lambda: (Network(), "second"))
    assert note == "second"


def test_a_failed_load_leaves_nothing() -> None:
    cache: WeakCache[Network, str] = WeakCache()

    def fail() -> tuple[Network, str]:
        raise ValueError

    for _ in range(2):
        try:
            cache.get("key", fail)
        except ValueError:
            assert len(cache) == 0


def test_a_replaced_file_has_another_stamp(tmp_path: Path) -> None:
    path = tmp_path / "control.safetensors"
    path.write_bytes(b"one")
    before = file_stamp(path)
    assert file_stamp(path) == before
    os.utime(path, ns=(1, 1))
    assert file_stamp(path) != before
    path.write_bytes(b"longer")
    os.utime(path, ns=(before.modified_ns, before.modified_ns))
    assert file_stamp(path) != before


def test_a_file_of_the_same_size_and_time_has_another_stamp(tmp_path: Path) -> None:
    """As tools leave it that keep times: `cp -p`, unpacked archives."""
    path, other = tmp_path / "control.safetensors", tmp_path / "other.safetensors"
    path.write_bytes(b"one")
    other.write_bytes(b"two")
    before = file_stamp(path)
    os.utime(other, ns=(before.modified_ns, before.modified_ns))
    os.replace(other, path)
    after = file_stamp(path)
    assert (after.size, after.modified_ns) == (before.size, before.modified_ns)
    assert after != before
