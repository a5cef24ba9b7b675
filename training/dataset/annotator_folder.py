"""The networks of preprocessors from a folder of their files, without the host."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from ...checkpoints.read import open_checkpoint
from ...preprocessors.annotators import BY_ID, Annotator
from ...preprocessors.networks.network import Network
from ...preprocessors.networks.transformer import WEIGHTS
from ..errors import TrainingError


def networks_from(
    folder: Path | None, identifiers: Sequence[str], device: torch.device, dtype: torch.dtype = torch.float32
) -> dict[str, Network]:
    """The networks of these annotators on a device; those that half precision harms compute in float32.

    Raises TrainingError where a file is missing, PreprocessorError or CheckpointError where one is another than the published.
    """
    return {identifier: _network(folder, BY_ID[identifier], device, dtype) for identifier in identifiers}


def _network(folder: Path | None, annotator: Annotator, device: torch.device, dtype: torch.dtype) -> Network:
    place = None if folder is None else located(annotator, folder)
    if place is None:
        wanted = f"{annotator.folder}/" if annotator.folder else annotator.file
        raise TrainingError(
            f"The folder of annotators '{folder}'" if folder is not None else "The key 'annotators'",
            found=f"lacks '{wanted}'" if folder is not None else "is not told",
            expected=f"the weights of {annotator.id} were expected ({annotator.licence}: {annotator.commercial})",
            remedy=f"fetch them with `python host.py annotators download {annotator.id}`, and name their folder",
        )
    used = dtype if annotator.half else torch.float32
    if annotator.reads == "path":
        module: nn.Module = annotator.build(place, dtype=used)
    else:
        checkpoint = open_checkpoint(place)
        weights = checkpoint.fetch(checkpoint.tensors, mapped=False)
        module = annotator.build(weights, file=place.name, operations=nn, dtype=used)
    return Network(module.to(device).eval().requires_grad_(False), device, used)


def located(annotator: Annotator, folder: Path) -> Path | None:
    """Where an annotator's file lies in a folder, or its folder: as `host.py annotators download` and the node put them."""
    if annotator.folder:
        places = (folder / annotator.folder, folder / annotator.folder.rpartition("/")[2])
        return next((place for place in places if _whole(annotator, place)), None)
    name = Path(annotator.file)
    names = [name] if annotator.reads == "path" else [name.with_suffix(".safetensors"), name]
    return next((folder / one for one in names if (folder / one).is_file()), None)


def _whole(annotator: Annotator, place: Path) -> bool:
    """Weights in either of transformers' formats do."""
    return all(
        any((place / name).is_file() for name in (WEIGHTS if file.name in WEIGHTS else (file.name,)))
        for file in annotator.files
    )
