"""What a training hands out: its control, its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.cldm.cldm
import comfy.model_management
import comfy.ops
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..checkpoints import connected_base
from ..checkpoints.build import INFERENCE_DTYPES
from ..control import EncoderNetwork
from ..control.lite import LiteNetwork
from ..evaluation.fidelity import MEASURES
from ..training.convergence import sudden_step
from ..training.copy import arguments, encoder_of
from ..training.lite import LiteControl
from ..training.picture import read_losses
from ..training.recipe import Recipe
from ..training.record import Record
from ..training.validation import read_rows, read_scores
from .training_page import duration
from .training_session import Result


def network_of(recipe: Recipe, dataset: Any, result: Result, name: str) -> EncoderNetwork:
    """The trained weights in the host's hands, in full precision, computing in what the host would choose for them."""
    base = connected_base(recipe.model).name
    about = {"base": base, "steps": str(result.step)}
    about |= {"condition": dataset.condition} if dataset.condition else {}
    with torch.inference_mode(False), torch.no_grad():
        module = empty_network(recipe.model, recipe)
        module.load_state_dict(dict(result.average), assign=True)
        module.eval().requires_grad_(False)
    if recipe.form == "lite":
        return LiteNetwork.from_module(module, name=name, base=base, about=about)
    return EncoderNetwork.from_module(module, name=name, base=base, about=about, manual_cast_dtype=_cast())


def empty_network(model: Any, recipe: Recipe) -> Any:
    """The network of a recipe without numbers."""
    unet = model.get_model_object("diffusion_model")
    net = encoder_of(unet, recipe.hint_channels)
    with torch.device("meta"):
        if recipe.form == "lite":
            return LiteControl(net)
        operations = comfy.ops.pick_operations(torch.float32, _cast())
        # SD2's attention overflows in half precision; the host keeps it in full (supported_models.SD20).
        precision = model.model.model_config.unet_config.get("attn_precision")
        return comfy.cldm.cldm.ControlNet(**arguments(unet, net), attn_precision=precision, operations=operations)


def _cast() -> torch.dtype | None:
    """What the host would keep such weights in, in which it computes; None for full precision."""
    dtype = comfy.model_management.unet_dtype(
        model_params=-1, supported_dtypes=INFERENCE_DTYPES, weight_dtype=torch.float32
    )
    return None if dtype == torch.float32 else dtype


def higher_is_better(dataset: Any) -> bool:
    """Of the measure of the set's condition; True where there is none."""
    return dataset.condition not in MEASURES or MEASURES[dataset.condition].higher_is_better


def report_of(
    folder: Path, record: Record, result: Result, how: str, dataset: Any, validation: Any, higher: bool
) -> str:
    """One fact a line. `how` says whether it was continued; `higher`: whether a higher score is better."""
    steps, losses = read_losses(folder)
    at, scores = read_scores(folder)
    lines = [f"'{folder.name}': step {result.step} of {record.settings['steps']}, {how}"]
    if losses:
        lines.append(f"loss: {losses[0]:.4g} at step {steps[0]}, {losses[-1]:.4g} at step {steps[-1]}")
    if record.seconds:
        lines.append(f"time: {duration(record.seconds)}")
    lines.append(
        f"learned from: {len(dataset)} pictures" + (f", hints by {dataset.condition}" if dataset.condition else "")
    )
    lines += [f"changed on the way: {change}" for change in record.changes]
    whose = "pictures that were learned from" if validation is None else "pictures that were not learned from"
    if at:
        lines.append(
            f"validation on {whose}, {read_rows(folder)[-1].measure}: {scores[0]:.3g} at step {at[0]}, {scores[-1]:.3g} at step {at[-1]}"
        )
        sudden = sudden_step(at, scores, higher)
        lines.append("no sudden convergence seen" if sudden is None else f"sudden convergence at step {sudden}")
    else:
        lines.append(f"validation on {whose}; their hints have no measure")
    lines.append(f"folder: {folder}")
    return "\n".join(lines)


def as_image(picture: Image.Image) -> Tensor:
    """(1, H, W, 3) float32 in 0..1."""
    return torch.from_numpy(np.array(picture)).float()[None] / 255
