"""Whether weights may stay where they are: in the file, mapped into memory."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

# File systems of this machine. Over a network a lost connection would end the process with the first page that cannot be read.
LOCAL = frozenset(
    (
        "apfs",
        "bcachefs",
        "btrfs",
        "ext2",
        "ext3",
        "ext4",
        "f2fs",
        "hfs",
        "overlay",
        "ramfs",
        "squashfs",
        "tmpfs",
        "xfs",
        "zfs",
    )
)


def may_stay_mapped(path: Path) -> bool:
    """Whether a network may keep this file mapped for as long as it lives.

    Not on Windows, where nobody could replace or delete the file meanwhile, not on a file system that may be another machine's, and not
    where the user started the host with --disable-mmap.
    """
    from comfy.cli_args import args  # here, because what a file is can be told without the host

    return os.name != "nt" and not args.disable_mmap and file_system(path) in LOCAL


def file_system(path: Path) -> str:
    """The kind of the file system that holds an existing file; empty where the system does not tell."""
    place = path.resolve()
    mounts = {Path(mount.mountpoint): mount.fstype for mount in psutil.disk_partitions(all=True)}
    return next((mounts[folder] for folder in place.parents if folder in mounts), "")
