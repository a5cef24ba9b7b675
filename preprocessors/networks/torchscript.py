"""Networks that come with their own program, as TorchScript.

Loading such a file runs no Python and unpickles no Python objects: its program is compiled from a restricted language whose only calls are those of
torch. Two of these write and read files by name, with the rights of the host, so programs that name them are refused before anything of them runs.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor, nn

from ..errors import PreprocessorError
from .weights import short

REFUSED = re.compile(rb"\b(save|from_file|load_tensor|rpc_\w+|PythonOp|IgnoredPythonOp|torch\s*\.\s*classes)\b")
"""Names in a program that reach beyond its tensors: torch.save and torch.from_file, debugging's tensors from files, calls of other machines, Python,
and classes of native code. As words alone, since a program may write a call in many ways."""
FOREIGN = re.compile(rb"\bops\s*\.\s*(?!prim\b|aten\b)(\w+)")
"""Calls outside of torch's own two sets."""


class Program(nn.Module):
    """A TorchScript network that computes on the device where its parameters are."""

    def __init__(self, script: nn.Module):
        super().__init__()
        self.script = script

    def forward(self, *tensors: Tensor) -> Any:
        # Otherwise the first calls are spent on watching and rewriting the program, seconds of them on an accelerator.
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            return self.script(*tensors)


def check_program(path: Path) -> None:
    """Raises PreprocessorError unless the file is a TorchScript archive whose program stays among its tensors."""
    expected = "a TorchScript archive, which holds a network with its program, was expected"
    try:
        with ZipFile(path) as archive:
            names = archive.namelist()
            code = [name for name in names if name.endswith(".py")]
            # Which of two entries of one name is read differs from reader to reader.
            doubled = len(set(names)) != len(names)
            is_program = any(name.endswith("/constants.pkl") for name in names) and bool(code) and not doubled
            texts = [archive.read(name) for name in code] if is_program else []
    except (BadZipFile, OSError, NotImplementedError, RuntimeError) as problem:
        raise PreprocessorError(
            f"'{path.name}': found no archive ({problem}), but {expected}; download the published file anew, not its ONNX or .pth version."
        ) from None
    if not is_program:
        raise PreprocessorError(
            f"'{path.name}': found an archive without a program, but {expected}; put the published file there, not its ONNX or .pth version."
        )
    for text in texts:
        found = REFUSED.search(text) or FOREIGN.search(text)
        if found:
            name = short(found.group(1).decode("ascii", "replace"))
            raise PreprocessorError(
                f"'{path.name}': found a program that calls '{name}', but one that only computes with its tensors was expected; "
                "delete the file and download it from its published address."
            )


def build_torchscript(path: Path, *, dtype: torch.dtype = torch.float32) -> Program:
    """The network of a TorchScript file, on the CPU, for inference. Raises PreprocessorError."""
    check_program(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            script = torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError) as problem:
        raise PreprocessorError(
            f"'{path.name}': found a TorchScript archive that this version of torch cannot read ({_first_line(problem)}), but the published "
            "network was expected; download it anew."
        ) from problem
    return Program(script.to(dtype)).requires_grad_(False).eval()


def _first_line(problem: Exception) -> str:
    lines = [line for line in str(problem).splitlines() if line.strip()]
    return short(lines[0]) if lines else type(problem).__name__
