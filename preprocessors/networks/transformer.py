"""A network of the transformers library from a folder on this machine."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import PreprocessorError

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def build_transformer(folder: Path, *, architecture: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The class `architecture` of transformers with the settings and weights of a folder, for inference on the CPU in `dtype`.

    Safetensors are preferred, a .bin is read by torch's safe loading, no code in the folder runs and nothing is asked of the network. Raises
    PreprocessorError where the folder holds another network, or less than this one.
    """
    import transformers  # here, because importing the pack must stay fast

    if not (folder / CONFIG).is_file() or not any((folder / name).is_file() for name in WEIGHTS):
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) if folder.is_dir() else "no folder"
        raise PreprocessorError(
            f"'{folder.name}': found {found or 'an empty folder'}, but {CONFIG} and {WEIGHTS[0]} of a {architecture} were expected; "
            "put all files of the published repository there."
        )
    kind = getattr(transformers, architecture, None)
    if kind is None:
        raise PreprocessorError(
            f"'{folder.name}': found transformers {transformers.__version__} without {architecture}, but a version that has it was expected; "
            "update transformers, or choose another network."
        )
    try:
        settings = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError) as problem:
        raise PreprocessorError(
            f"'{folder.name}/{CONFIG}': found settings that transformers cannot read ({one_line(problem)}), but those of a {architecture} were "
            "expected; put the published file there."
        ) from problem
    if not isinstance(settings, kind.config_class):
        raise PreprocessorError(
            f"'{folder.name}/{CONFIG}': found a '{settings.model_type}', but a '{kind.config_class.model_type}' for {architecture} was expected; "
            "put the published folder there, or choose the network that this one is."
        )
    return loaded(kind, folder, settings, dtype)


def loaded(kind: Any, folder: Path, settings: Any, dtype: torch.dtype) -> nn.Module:
    try:
        # Older versions of the library know the dtype by torch_dtype only; it is brought to it afterwards in any case.
        module, found = kind.from_pretrained(
            str(folder), config=settings, local_files_only=True, output_loading_info=True, weights_only=True
        )
    except pickle.UnpicklingError as problem:
        raise PreprocessorError(
            f"'{folder.name}/{WEIGHTS[1]}': found a file that holds or asks for more than tensors, but weights of {kind.__name__} were expected; "
            f"do not load it elsewhere either, and take the {WEIGHTS[0]} of the published repository."
        ) from problem
    except (OSError, ValueError, RuntimeError, KeyError) as problem:
        raise PreprocessorError(
            f"'{folder.name}': found weights that {kind.__name__} cannot take ({one_line(problem)}), but those of its {CONFIG} were expected; "
            "download the folder anew."
        ) from problem
    missing = sorted(found["missing_keys"])
    if missing:
        more = f" (and {len(missing) - 1} more such)" if len(missing) > 1 else ""
        raise PreprocessorError(
            f"'{folder.name}': found no tensor '{missing[0]}'{more}, but all weights of {kind.__name__} were expected; download the folder anew."
        )
    network: nn.Module = module.to(dtype).requires_grad_(False).eval()
    return network


def one_line(problem: Exception) -> str:
    lines = str(problem).strip().splitlines()
    return lines[0][:200] if lines else type(problem).__name__
