"""A path becomes an open checkpoint. The first bytes decide the format; extensions are often wrong."""

from __future__ import annotations

from pathlib import Path

from .errors import UnreadableFileError
from .safetensors_file import looks_like_safetensors, open_safetensors
from .tensors import Checkpoint
from .torch_file import looks_like_torch, open_torch

# How files begin that are no weights of torch. An ONNX file has no such mark.
KINDS = {
    b"GGUF": "a GGUF file of quantised weights",
    b"\x89PNG": "a picture (PNG)",
    b"\xff\xd8\xff": "a picture (JPEG)",
    b"RIFF": "a picture (WebP) or a sound",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"7z\xbc\xaf\x27\x1c": "a packed archive (7z)",
    b"Rar!": "a packed archive (RAR)",
    b"\x1f\x8b": "a packed archive (gzip)",
    b"%PDF": "a PDF document",
}

EXPECTED = "a weights file (.safetensors .pth .pt .ckpt .bin) was expected"


def open_checkpoint(path: Path) -> Checkpoint:
    """Names, shapes, dtypes and metadata of a weights file; the data of a safetensors file stays on disk.

    Raises UnreadableFileError or CodeInFileError.
    """
    start = _first_bytes(path)
    if looks_like_safetensors(start):
        return open_safetensors(path)
    if looks_like_torch(start):
        return open_torch(path)
    raise _foreign(path, start)


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        found = "is a folder" if path.is_dir() else f"cannot be opened ({error.strerror})"
        raise UnreadableFileError(path, found=found, expected=EXPECTED, remedy="choose another file") from error
    if not start:
        raise UnreadableFileError(path, found="is empty", expected=EXPECTED, remedy="download it again")
    return start


def _foreign(path: Path, start: bytes) -> UnreadableFileError:
    kind = next((what for first, what in KINDS.items() if start.startswith(first)), None)
    if start.startswith(b"version https://git-lfs"):
        found, remedy = "is only a Git LFS pointer", "fetch the real file with 'git lfs pull' or from its page"
    elif kind is not None:
        found, remedy = f"is {kind}", "choose a weights file in one of these formats"
    elif not any(start):
        found, remedy = "begins with nothing but zeros, as a download does that did not end", "download it again"
    elif start.lstrip()[:1] == b"<":
        found, remedy = "is a web page", "download the file itself, not the page that shows it"
    elif start.lstrip()[:1] in (b"{", b"[") and _is_text(start):
        found = "is a JSON text, such as a model's config.json or what a server answers in place of a file"
        remedy = "choose the weights file that it belongs to, or download that file again"
    elif _is_text(start):
        found, remedy = "is a text file", "choose the weights file that it belongs to"
    else:
        found, remedy = "is in no format known here", "download it again or choose another file"
    return UnreadableFileError(path, found=found, expected=EXPECTED, remedy=remedy)


def _is_text(start: bytes) -> bool:
    try:
        text = start[:500].decode("utf-8", errors="strict" if len(start) < 500 else "ignore")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character.isspace() for character in text)
