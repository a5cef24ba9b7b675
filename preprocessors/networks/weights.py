"""A file's tensors become a network's weights, every one of them accounted for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..errors import PreprocessorError

Module = TypeVar("Module", bound=nn.Module)

NOWHERE = torch.device("meta")
"""Where modules have shapes and no numbers."""
MARK = "module."
"""What training on several devices puts before every name."""


def unmarked(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by their names without the mark."""
    return {name.removeprefix(MARK): tensor for name, tensor in weights.items()}


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def check_weights(
    file: str, network: str, weights: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Raises PreprocessorError unless the names and shapes are those expected."""
    missing = [name for name in expected if name not in weights]
    unknown = [name for name in weights if name not in expected]
    other = [name for name in expected if name in weights and tuple(weights[name].shape) != expected[name]]
    if missing:
        found = f"no tensor '{missing[0]}'" + others(missing)
    elif unknown:
        found = f"a tensor '{short(unknown[0])}' that it has no use for" + others(unknown)
    elif other:
        found = f"'{other[0]}' of shape {tuple(weights[other[0]].shape)} in place of {expected[other[0]]}" + others(
            other
        )
    else:
        return
    raise PreprocessorError(
        f"'{file}': found {found}, but the {len(expected)} tensors of {network} were expected; "
        "put the published file there, under its own name."
    )


def others(names: list[str]) -> str:
    return f" (and {len(names) - 1} more such)" if len(names) > 1 else ""


def short(name: str) -> str:
    """A name out of a file, as it can stand in a sentence."""
    return "".join(character if character.isprintable() else "?" for character in name[:80])


def filled(module: Module, weights: Mapping[str, Tensor], dtype: torch.dtype) -> Module:
    """The module, built at NOWHERE, with these weights: for inference, nothing to be trained."""
    module.load_state_dict({name: tensor.to(dtype) for name, tensor in weights.items()}, strict=True, assign=True)
    return module.requires_grad_(False).eval()
