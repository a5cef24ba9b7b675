"""Files of torch.save (.pth .pt .ckpt .bin), read as weights only: code in them is refused, never run."""

from __future__ import annotations

import mmap
import pickle
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .cache import file_stamp
from .errors import CheckpointError, CodeInFileError, UnreadableFileError, short
from .tensors import Checkpoint, TensorInfo

# Where training scripts put the weights inside of what they save; tried in this order.
CONTAINERS = ("state_dict", "model", "adapter", "module", "controlnet", "params", "net", "weights")
MAX_NESTING = 4
ANY_SIZE = b"bytearray"
# Only TorchScript's archives have one (torch/csrc/jit/serialization).
PROGRAM = "constants.pkl"

EXPECTED = "a file of tensors was expected"
AGAIN = "download it again, best as .safetensors"


def open_torch(path: Path) -> Checkpoint:
    """Read a pickled checkpoint with `weights_only`, mapped into memory where it is of the zip kind.

    Raises CodeInFileError for a pickle that names anything but tensors, UnreadableFileError for a damaged one.
    """
    stamp = file_stamp(path)
    weights = _unwrap(path, _load(path))
    tensors = {name: TensorInfo(name, tuple(tensor.shape), tensor.dtype) for name, tensor in weights.items()}
    # A view with zero strides can claim any size; nothing may be allocated for what the file does not hold.
    for name, tensor in weights.items():
        if tensors[name].nbytes > tensor.untyped_storage().nbytes():
            raise _broken(path, f"claims more numbers for the tensor '{short(name)}' than it holds")

    def fetch(names: Iterable[str], mapped: bool = True) -> dict[str, Tensor]:
        # Another map for every caller: no two networks may share tensors that one of them could write to.
        shared = not mapped or not _is_plain_zip(path)
        read = weights if shared else _unwrap(path, _load(path))
        if not path.exists() or file_stamp(path) != stamp:
            raise _broken(path, "was changed while it was read")
        return {name: read[name].clone() if shared else read[name] for name in names}

    return Checkpoint(path, tensors, {}, fetch)


def looks_like_torch(start: bytes) -> bool:
    """Whether the file begins like a zip archive or like a pickle."""
    return start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05")


def _broken(path: Path, found: str) -> UnreadableFileError:
    return UnreadableFileError(path, found=found, expected=EXPECTED, remedy=AGAIN)


def _load(path: Path) -> object:
    try:
        mapped = _is_plain_zip(path)
        if _asks_for_memory(path, mapped):
            raise _code(path, "asks for a block of memory ('bytearray')")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise _refused_pickle(path, error) from None
    except CheckpointError:
        raise
    except Exception as error:  # whatever a damaged pickle makes of the unpickler
        raise _broken(path, "is damaged or cut off") from error


def _is_plain_zip(path: Path) -> bool:
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return False
    with zipfile.ZipFile(path) as archive:
        if not any(entry.filename.endswith("data.pkl") for entry in archive.infolist()):
            raise UnreadableFileError(
                path,
                found="is a zip archive and no file of torch",
                expected=EXPECTED,
                remedy="unpack it and choose the weights file in it",
            )
        if any(entry.filename.endswith(PROGRAM) for entry in archive.infolist()):
            raise UnreadableFileError(
                path,
                found="is a TorchScript program, weights and code in one",
                expected=EXPECTED,
                remedy="choose the weights that it was made of, or the node that it belongs to",
            )
        if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
            raise _broken(path, "is a compressed archive")
    return True


def _refused_pickle(path: Path, error: pickle.UnpicklingError) -> CodeInFileError | UnreadableFileError:
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    if named is None and "Unsupported operand" in str(error):
        return _broken(path, "is damaged or cut off")
    return _code(path, f"asks to run code ('{short(named[1])}')" if named else "makes objects that are no tensors")


def _asks_for_memory(path: Path, is_zip: bool) -> bool:
    """Whether a pickle names the one type that torch lets it make at any size, filled, out of a few bytes; no weights need it."""
    if not is_zip:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(ANY_SIZE) >= 0
    with zipfile.ZipFile(path) as archive:
        programs = [entry for entry in archive.infolist() if entry.filename.endswith(".pkl")]
        return any(ANY_SIZE in archive.read(entry) for entry in programs)


def _code(path: Path, asks: str) -> CodeInFileError:
    return CodeInFileError(
        path,
        found=f"{asks} when it is opened, and was not opened",
        expected=EXPECTED,
        remedy="get a .safetensors version of it, and trust its source before you open it anywhere else",
    )


def _unwrap(path: Path, content: object) -> dict[str, Tensor]:
    for _ in range(MAX_NESTING):
        if not isinstance(content, dict):
            break
        weights = {name: value for name, value in content.items() if isinstance(name, str) and _is_weight(value)}
        inner = next((content[name] for name in CONTAINERS if isinstance(content.get(name), dict)), None)
        if inner is None and len(content) == 1:
            inner = next(iter(content.values()))
        if inner is None and not weights:
            weights = _flat(content)
        # Beside the weights a training script may save a step or a rate, as tensors too.
        if inner is None or (
            weights and not isinstance(content.get("state_dict"), dict) and not _holds_more(inner, len(weights))
        ):
            if not weights:
                break
            return weights
        content = inner
    raise _broken(path, "holds no named tensors")


def _flat(content: dict[Any, Any]) -> dict[str, Tensor]:
    """The tensors of dicts in a dict, such as an IP-Adapter's two parts or an embedding's vectors, as `outer.inner`."""
    return {
        f"{outer}.{inner}": value
        for outer, part in content.items()
        if isinstance(outer, str) and isinstance(part, dict)
        for inner, value in part.items()
        if isinstance(inner, str) and _is_weight(value)
    }


def _holds_more(inner: object, count: int) -> bool:
    """Whether a dictionary has more than `count` tensors, or another one in it that is likely to."""
    if not isinstance(inner, dict):
        return False
    nested = any(isinstance(inner.get(name), dict) for name in CONTAINERS)
    return nested or sum(map(_is_weight, inner.values())) > count


def _is_weight(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
