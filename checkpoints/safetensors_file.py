"""Safetensors files: the header is checked by us before anything is allocated, the data is mapped by the library."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .cache import file_stamp
from .errors import UnreadableFileError, short
from .memory import empty
from .tensors import Checkpoint, TensorInfo

# The library's own ceiling for a header (safetensors, src/tensor.rs, MAX_HEADER_SIZE).
MAX_HEADER = 100_000_000

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}

EXPECTED = "a complete safetensors file was expected"
AGAIN = "download or save it again"


def open_safetensors(path: Path) -> Checkpoint:
    """Read and check the header (milliseconds, whatever the size of the file); the data stays on disk.

    Raises UnreadableFileError where the header does not describe exactly this file.
    """
    stamp = file_stamp(path)
    text = _header_text(path)
    tensors, metadata = _parse(path, text, stamp.size)

    def fetch(names: Iterable[str], mapped: bool = True) -> dict[str, Tensor]:
        try:
            read = _map(path, names) if mapped else _read(path, names, tensors, _places(text))
            same = file_stamp(path) == stamp
        except (SafetensorError, OSError) as error:
            raise _broken(path, f"cannot be read ({error})") from error
        if not same:
            raise _broken(path, "was changed while it was read")
        return read

    return Checkpoint(path, tensors, metadata, fetch)


def looks_like_safetensors(start: bytes) -> bool:
    """Whether the first nine bytes are a header length and an opening brace."""
    return len(start) >= 9 and start[8:9] == b"{"


def _map(path: Path, names: Iterable[str]) -> dict[str, Tensor]:
    with safe_open(str(path), framework="pt", device="cpu") as file:
        return {name: file.get_tensor(name) for name in names}


def _read(
    path: Path, names: Iterable[str], tensors: Mapping[str, TensorInfo], places: Mapping[str, int]
) -> dict[str, Tensor]:
    """Read without a map, straight to where each tensor stays: one copy, and no crash where the file becomes shorter."""
    read = {}
    with path.open("rb") as file:
        for name in names:
            tensor = empty(tensors[name].shape, tensors[name].dtype)
            file.seek(places[name])
            if file.readinto(tensor.view(-1).view(torch.uint8).numpy().data) != tensor.nbytes:
                raise _broken(path, f"is cut off inside the tensor '{short(name)}'")
            read[name] = tensor
    return read


def _places(text: bytes) -> dict[str, int]:
    """Where each tensor of a checked header begins in the file."""
    header = json.loads(text)
    return {name: 8 + len(text) + entry["data_offsets"][0] for name, entry in header.items() if name != "__metadata__"}


def _broken(path: Path, found: str) -> UnreadableFileError:
    return UnreadableFileError(path, found=found, expected=EXPECTED, remedy=AGAIN)


def _header_text(path: Path) -> bytes:
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > MAX_HEADER:
            raise _broken(path, f"claims a header of {length:,} bytes")
        if 8 + length > size:
            raise _broken(path, f"is cut off inside its header ({size:,} of at least {8 + length:,} bytes)")
        return file.read(length)


def _parse(path: Path, text: bytes, size: int) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    try:
        header = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _broken(path, "has a header that is no JSON") from error
    if not isinstance(header, dict):
        raise _broken(path, "has a header that is no JSON object")
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _broken(path, "has metadata other than text")
    available = size - 8 - len(text)
    tensors = {name: _tensor(path, name, entry) for name, entry in header.items()}
    described = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if described > available:
        raise _broken(path, f"is cut off ({available:,} of {described:,} bytes of tensor data are there)")
    return tensors, metadata


def _tensor(path: Path, name: str, entry: Any) -> TensorInfo:
    if not isinstance(entry, dict) or not _is_sizes(entry.get("shape")) or not _is_sizes(entry.get("data_offsets")):
        raise _broken(path, f"describes the tensor '{short(name)}' without shape or place")
    dtype = DTYPES.get(str(entry.get("dtype")))
    if dtype is None:
        raise UnreadableFileError(
            path,
            found=f"stores the tensor '{short(name)}' as '{short(str(entry.get('dtype')))}'",
            expected="float32, float16, bfloat16 or float8 was expected",
            remedy="choose a version of the file in one of these, or download it again",
        )
    shape = tuple(entry["shape"])
    offsets = entry["data_offsets"]
    if len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * dtype.itemsize:
        raise _broken(path, f"gives the tensor '{short(name)}' a shape that does not fit its bytes")
    return TensorInfo(name, shape, dtype)


def _is_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)
